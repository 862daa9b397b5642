"""Who calls whom, and the time on each edge: services, databases, tools."""

from __future__ import annotations

from typing import Any

import polars as pl

from perfkit import units
from perfkit.report import graph
from perfkit.report.columns import Column
from perfkit.report.context import Context
from perfkit.report.graph import Edge, Layout, Node
from perfkit.report.node_rows import COMPONENT, rows_of_nodes

TITLE = "Dependencies"
NEEDS = ("components",)
EMPTY = {
    "what": "There are no spans in this capture, so nobody knows who calls whom.",
    "how": "Record what the service's OpenTelemetry SDK sends, or import traces:",
    "command": "perfkit record --pid PID --otlp --duration 30s -o slow.perfkit",
}

CALLERS = "requests"
OWN_WORK = ("server", "internal")
"""Categories of spans in which a service works itself."""
_EDGES = 30
"""Edges that are drawn, those with most time; the table has more."""
_ROWS = 100
_SHOWN = 22

_COLUMNS = (
    Column("caller", "Caller", "text", "wrap"),
    Column("component", "Calls", "text", "wrap"),
    Column("category", "Kind", "text", "muted nowrap"),
    Column("critical_ratio", "Share of request time", "share"),
    Column("critical_ns", "Critical path", hint="Time that set the length of requests"),
    Column("total_ns", "Total", hint="Time in the calls, as the caller saw it"),
    Column("server_ns", "At the callee", hint="Time that the callee's own spans show"),
    Column("gap_ns", "Network and queue", hint="Between the caller's span and the callee's"),
    Column("count", "Calls"),
    Column("p95_ns", "p95"),
    Column("error_ratio", "Errors"),
    Column("max_concurrency", "At once", hint="Most calls that ran at the same time"),
)

Row = dict[str, Any]


def build(context: Context) -> dict[str, Any]:
    """Return the graph as places of boxes and arrows, and the table of its edges."""
    ranked = context.tables.frame("edges").sort(
        ["critical_ns", "total_ns"], descending=True, nulls_last=True, maintain_order=True
    )
    edges = [
        row | {"caller": row["service"] or "?", "component": row["component"] or row["category"]}
        for row in ranked.to_dicts()
    ]
    entries = _entries(context)
    services = _services(context)
    layout = _layout(edges[:_EDGES], entries, services)
    return {
        "columns": _columns(edges),
        "rows": edges[:_ROWS],
        "left_out": max(len(edges) - _ROWS, 0),
        "undrawn": max(len(edges) - _EDGES, 0),
        "box_width": graph.WIDTH,
        "width": round(layout.width),
        "height": round(layout.height),
        "nodes": [_node(node, services, edges) for node in layout.nodes.values()],
        "edges": _drawn(layout, edges, entries),
        "data": {
            "rows": [[row["caller"], row["component"]] for row in edges[:_ROWS]],
            **_live(context, ranked.head(_ROWS).to_dicts()),
        },
    }


def _live(context: Context, edges: list[Row]) -> dict[str, Any]:
    """Return what lets graph and table follow the filter: the row, and the service, of each node.

    Nothing where a node of the request flame graph is of several rows: the whole is shown then.
    """
    own = (
        context.tables.frame("components")
        .filter(pl.col("category").is_in(OWN_WORK))
        .select(COMPONENT)
        .to_dicts()
    )
    row_of_node = rows_of_nodes(context, edges, COMPONENT)
    own_of_node = rows_of_nodes(context, own, COMPONENT)
    if row_of_node is None or own_of_node is None:
        return {}
    return {
        "row_of_node": row_of_node,
        "own_of_node": own_of_node,
        "own": [row["service"] or "?" for row in own],
    }


def _columns(edges: list[Row]) -> list[Column]:
    """Leave out what no edge has."""
    optional = ("server_ns", "gap_ns", "error_ratio")
    return [
        column
        for column in _COLUMNS
        if column.key not in optional or any(row[column.key] for row in edges)
    ]


def _entries(context: Context) -> list[Row]:
    """Return which services requests come to: how many, and their time."""
    weight = pl.col("adjusted_count")
    return (
        context.population.entries.group_by(pl.col("service").fill_null("?"))
        .agg(count=weight.sum(), total_ns=(weight * pl.col("duration_ns")).sum())
        .sort("total_ns", "service", descending=[True, False])
        .to_dicts()
    )


def _services(context: Context) -> dict[str, float]:
    """Return the time on the critical path that services spend themselves."""
    own = context.tables.frame("components").filter(pl.col("category").is_in(OWN_WORK))
    sums = own.group_by(pl.col("service").fill_null("?")).agg(pl.col("critical_ns").sum())
    return dict(sums.sort("service").iter_rows())


def _layout(edges: list[Row], entries: list[Row], services: dict[str, float]) -> Layout:
    arrows = _merged(edges)
    arrows += [Edge(CALLERS, row["service"], row["total_ns"]) for row in entries]
    names = dict.fromkeys(name for arrow in arrows for name in (arrow.source, arrow.target))
    weights = {
        name: services.get(name, 0.0)
        + sum(arrow.weight for arrow in arrows if arrow.target == name)
        for name in names
    }
    nodes = [Node(name, weights[name]) for name in names]
    return graph.place(nodes, arrows, [CALLERS] if entries else [])


def _merged(edges: list[Row]) -> list[Edge]:
    """Return one arrow for two boxes; several kinds of calls between them are added up."""
    found: dict[tuple[str, str], Edge] = {}
    for row in edges:
        key = (row["caller"], row["component"])
        if key[0] == key[1]:
            continue
        found.setdefault(key, Edge(*key, 0.0)).weight += row["total_ns"] or 0
    return list(found.values())


def _node(node: Node, services: dict[str, float], edges: list[Row]) -> Row:
    called = [row for row in edges if row["component"] == node.name]
    if node.name == CALLERS:
        kind, said = "callers", "come from outside"
    elif node.name in services:
        kind, said = "service", f"{units.duration(services[node.name])} own work"
    else:
        category = called[0]["category"] if called else "client"
        kind = category if category in ("database", "tool", "messaging") else "client"
        said = "another service" if kind == "client" else kind
    label = node.name if len(node.name) <= _SHOWN else f"{node.name[: _SHOWN - 1]}…"
    return {"name": node.name, "label": label, "kind": kind, "said": said, "place": node}


def _drawn(layout: Layout, edges: list[Row], entries: list[Row]) -> list[Row]:
    heaviest = max((edge.weight for edge in layout.edges), default=0.0) or 1.0
    counts: dict[tuple[str, str], float] = {}
    for row in edges:
        key = (row["caller"], row["component"])
        counts[key] = counts.get(key, 0.0) + row["count"]
    for row in entries:
        counts[CALLERS, row["service"]] = row["count"]
    drawn = []
    for edge in layout.edges:
        count = units.number(round(counts[edge.source, edge.target]))
        calls = "requests" if edge.source == CALLERS else "calls"
        drawn.append(
            {
                "source": edge.source,
                "target": edge.target,
                "path": _path(layout, edge),
                "thickness": round(1 + 7 * edge.weight / heaviest, 1),
                "label": f"{units.duration(edge.weight)} · {count}",
                "label_x": layout.nodes[edge.target].x - 12,
                "label_y": edge.y - 6,
                "spoken": f"{edge.source} calls {edge.target}: "
                f"{units.duration(edge.weight)} in {count} {calls}",
            }
        )
    return drawn


def _path(layout: Layout, edge: Edge) -> str:
    """Return the arrow's line for SVG; one that goes back runs below the boxes."""
    source, target = layout.nodes[edge.source], layout.nodes[edge.target]
    x1, x2 = source.x + graph.WIDTH, target.x - 7
    y1, y2 = edge.start_y, edge.y
    if edge.back:
        low = layout.height - 8
        return (
            f"M{x1:.0f} {y1:.0f}C{x1 + 60:.0f} {y1:.0f} {x1 + 60:.0f} {low:.0f} {x1:.0f} {low:.0f}"
            f"L{x2:.0f} {low:.0f}C{x2 - 60:.0f} {low:.0f} {x2 - 60:.0f} {y2:.0f} {x2:.0f} {y2:.0f}"
        )
    path = f"M{x1:.0f} {y1:.0f}"
    for passed in edge.via:
        y = passed.y + passed.height / 2
        path += _curve(x1, y1, passed.x, y) + f"H{passed.x + graph.WIDTH:.0f}"
        x1, y1 = passed.x + graph.WIDTH, y
    return path + _curve(x1, y1, x2, y2)


def _curve(x1: float, y1: float, x2: float, y2: float) -> str:
    middle = x1 + (x2 - x1) * 0.35
    return f"C{middle:.0f} {y1:.0f} {middle:.0f} {y2:.0f} {x2:.0f} {y2:.0f}"
