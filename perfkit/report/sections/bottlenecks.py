"""What requests wait for: operations and components by time on the critical path."""

from __future__ import annotations

from typing import Any

import polars as pl

from perfkit.report import bottleneck_cards
from perfkit.report.columns import Column
from perfkit.report.context import Context
from perfkit.report.node_rows import COMPONENT, rows_of_nodes

TITLE = "Bottlenecks"
NEEDS = ("components",)
EMPTY = {
    "what": "There are no spans in this capture, so nobody knows what requests waited for.",
    "how": "Record what the service's OpenTelemetry SDK sends, or import traces:",
    "command": "perfkit record --pid PID --otlp --duration 30s -o slow.perfkit",
}

_ROWS = 50
_SHARE = Column(
    "critical_ratio",
    "Share of request time",
    "share",
    hint="Time on the critical path: making it shorter makes requests shorter",
)
_TIMES = (
    Column("critical_ns", "Critical path"),
    Column("self_ns", "Self", hint="Own time, without what it called"),
    Column("total_ns", "Total", hint="With what it called"),
    Column("gap_ns", "Network and queue", hint="Between the caller's span and the callee's"),
    Column("count", "Calls"),
    Column("p50_ns", "p50"),
    Column("p95_ns", "p95"),
    Column("p99_ns", "p99"),
    Column("error_ratio", "Errors"),
)
_COMPONENTS = (
    Column("component", "Component", "text", "wrap"),
    Column("category", "Kind", "text", "muted nowrap"),
    Column("service", "Seen from", "text", "muted nowrap"),
    _SHARE,
    *_TIMES,
    Column("max_concurrency", "At once", hint="Most calls that ran at the same time"),
)
_OPERATIONS = (
    Column("name", "Operation", "text", "wrap"),
    Column("component", "Component", "text", "muted nowrap"),
    Column("service", "Service", "text", "muted nowrap"),
    _SHARE,
    *_TIMES,
)
_ENDPOINTS = (
    Column("endpoint", "Endpoint", "text", "wrap"),
    Column("service", "Service", "text", "muted nowrap"),
    Column("share_ratio", "Share of request time", "share"),
    Column("requests", "Requests"),
    Column("rate_per_s", "Rate"),
    Column("error_ratio", "Errors"),
    Column("mean_ns", "Mean"),
    Column("p50_ns", "p50"),
    Column("p95_ns", "p95"),
    Column("p99_ns", "p99"),
    Column("max_ns", "Max"),
)
_TOOLS = (Column("tool", "Tool", "text", "wrap"), *_ENDPOINTS[2:])
_VIEWS = (
    # id, heading, table, columns, key of a row, order
    ("operations", "Operations", "operations", _OPERATIONS, "critical_ns"),
    ("components", "Components", "components", _COMPONENTS, "critical_ns"),
    ("endpoints", "Endpoints", "endpoints", _ENDPOINTS, "total_ns"),
    ("tools", "Tools", "tools", _TOOLS, "total_ns"),
)


def build(context: Context) -> dict[str, Any]:
    """Return the tables, ranked by the request time that each row stands for, and cards."""
    views: list[dict[str, Any]] = []
    for name, heading, table, columns, order in _VIEWS:
        frame = context.tables.frame(table)
        if frame.is_empty():
            continue
        ranked = frame.sort(order, descending=True, nulls_last=True, maintain_order=True)
        views.append(
            {
                "name": name,
                "heading": heading,
                "columns": _telling(columns, ranked),
                "rows": ranked.head(_ROWS).to_dicts(),
                "left_out": max(ranked.height - _ROWS, 0),
            }
        )
    shown = {view["name"]: view["rows"] for view in views}
    live = _live(context, shown)
    first = bottleneck_cards.build(
        context, shown.get("operations", []), shown.get("components", [])
    )
    return {
        "views": views,
        "cards": first.cards,
        "wholes": first.wholes,
        "steps": first.steps,
        "data": {**live, "what_if": first.data},
    }


def _telling(columns: tuple[Column, ...], rows: pl.DataFrame) -> list[Column]:
    """Leave out what is the same in every row: one service only, or no gap anywhere."""
    same = {
        "service": rows["service"].n_unique() < 2 if "service" in rows.columns else True,
        "gap_ns": not rows["gap_ns"].sum() if "gap_ns" in rows.columns else True,
    }
    return [column for column in columns if not same.get(column.key, False)]


def _live(context: Context, shown: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return what lets the page fill the tables for any choice of requests.

    For operations and components: the table's row of each node of the request flame graph, -1 for
    none. For endpoints and tools: the names that tell the rows apart.
    """
    keys = {
        "operations": (*COMPONENT, "name"),
        "components": COMPONENT,
    }
    nodes = {name: rows_of_nodes(context, shown.get(name, []), key) for name, key in keys.items()}
    return {
        **{name: rows for name, rows in nodes.items() if rows is not None},
        "endpoints": [[row["service"], row["endpoint"]] for row in shown.get("endpoints", [])],
        "tools": [[row["tool"]] for row in shown.get("tools", [])],
    }
