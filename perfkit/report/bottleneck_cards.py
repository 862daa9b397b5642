"""The first bottlenecks: how requests reach each, what contends, and what if it were faster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from perfkit import units
from perfkit.analysis.waits.told_once import told_once
from perfkit.report import what_if
from perfkit.report.context import Context
from perfkit.report.what_if import Replays

Row = dict[str, Any]

OPERATION = ("service", "category", "component", "name")
COMPONENT = ("service", "category", "component")
_CARDS = 6
_WHOLES = 8
_LEAST = 0.01
"""Ours: what is less of the request time than this is no bottleneck."""
_CONTENDED = 3


@dataclass(frozen=True)
class Cards:
    """What the section shows: `cards` of operations, `wholes` of components, and their replays."""

    cards: list[Row]
    wholes: list[Row]
    steps: list[str]
    data: dict[str, Any] | None


def build(context: Context, operations: list[Row], components: list[Row]) -> Cards:
    """Return the cards of the first operations and components, given the largest first."""
    room = what_if.fitting(int(context.tables.cuts()[-1]))
    first = [row for row in operations[:_CARDS] if (row["critical_ratio"] or 0) >= _LEAST][:room]
    wholes = [row for row in components[:_WHOLES] if (row["critical_ratio"] or 0) >= _LEAST]
    wholes = wholes[: max(room - len(first), 0)]
    if not first:
        return Cards([], [], [], None)
    keys = [
        *({key: row[key] for key in OPERATION} for row in first),
        *({key: row[key] for key in COMPONENT} for row in wholes),
    ]
    replays = what_if.run(context.tables, keys)
    steps = [units.percent(step) for step in replays.steps]
    made = [
        {
            **row,
            "subject": at,
            "title": row["name"] or "a span without a name",
            "path": path,
            "contention": _contention(context, row),
            "replayed": _replayed(replays, at),
        }
        for at, (row, path) in enumerate(zip(first, _paths(context, first), strict=True))
    ]
    others = [
        {**row, "subject": len(first) + at, "replayed": _replayed(replays, len(first) + at)}
        for at, row in enumerate(wholes)
    ]
    data = {
        "steps": list(replays.steps),
        "endpoints": replays.endpoints,
        "measures": list(what_if.MEASURES),
        "values": replays.values,
    }
    return Cards(made, others, steps, data)


def _replayed(replays: Replays, subject: int) -> list[Row]:
    """Return the rows of the table that stands for the slider without scripts."""
    return [
        {
            "step": "now" if step == 0 else f"{units.percent(replays.steps[step - 1])} less",
            **{
                f"{measure}_ns": replays.at(subject, step, 0, measure)
                for measure in what_if.MEASURES
            },
        }
        for step in range(len(replays.steps) + 1)
    ]


def _paths(context: Context, rows: list[Row]) -> list[list[str]]:
    """Return how most of each operation's time is reached: labels from the entry down to it."""
    tables = context.tables
    wanted = pl.LazyFrame(
        {key: [row[key] for row in rows] for key in OPERATION},
        schema=dict.fromkeys(OPERATION, pl.String),
    ).with_row_index("card")
    sums = [
        shard["tree"]
        .select("row", *OPERATION)
        .join(wanted, on=OPERATION, nulls_equal=True)
        .join(shard["span_tree_rows"], on="row")
        .join(shard["span_times"].select("row", "critical_ns"), on="row")
        .group_by("card", "node_id")
        .agg(pl.col("critical_ns").sum())
        .collect()
        for shard in tables.shards_of("tree", "span_tree_rows", "span_times")
    ]
    nodes = (
        pl.concat(sums)
        .group_by("card", "node_id")
        .agg(pl.col("critical_ns").sum())
        .sort("card", "critical_ns", "node_id", descending=[False, True, False])
        .unique("card", keep="first", maintain_order=True)
    )
    first = dict(nodes.select("card", "node_id").iter_rows())
    tree = tables.frame("span_tree")
    label = dict(zip(tree["node_id"], tree["label"], strict=True))
    above = dict(zip(tree["node_id"], tree["parent_id"], strict=True))
    return [_upwards(first.get(card), label, above) for card in range(len(rows))]


def _upwards(node: int | None, label: dict[int, str], above: dict[int, int | None]) -> list[str]:
    path = []
    while node is not None and node >= 0:
        path.append(label[node] or "(no name)")
        node = above[node]
    return path[::-1]


def _contention(context: Context, row: Row) -> list[str]:
    """Say what somebody waited for in the operation's service, or on its host."""
    tables = context.tables
    mine = told_once(tables.frame("contention"), tables.frame("pools"))
    mine = mine.filter(pl.col("service").is_null() | pl.col("service").eq_missing(row["service"]))
    # One resource may be told of by several: what each saw is not added up.
    found = mine.group_by("kind", "resource", "instance", maintain_order=True).agg(
        pl.col("contended_ns").sum(), pl.col("wait_ns").sum()
    )
    found = found.unique(["kind", "resource"], keep="first", maintain_order=True)
    return [
        f"{one['kind']} {one['resource']}: for {units.duration(one['contended_ns'])}"
        + (f", {units.duration(one['wait_ns'])} waited in all" if one["wait_ns"] else "")
        for one in found.head(_CONTENDED).to_dicts()
    ]
