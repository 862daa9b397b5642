"""What changed against a baseline, and any two populations of requests or of code side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from perfkit import units
from perfkit.analysis.comparison import words
from perfkit.analysis.statistics.significance import LEVEL, MINIMUM_EFFECT
from perfkit.report.baseline import (
    CODE_LABELS,
    SPAN_LABELS,
    Baseline,
    blocks,
    blocks_of,
    joined,
)
from perfkit.report.context import Context
from perfkit.report.sections import flame_code, flame_requests

TITLE = "Comparison"
NEEDS: tuple[str, ...] = ()
EMPTY: dict[str, str] = {}

_GROUP = ("endpoint", "tool", "service", "status", "block")
_TABLES = (
    ("endpoint", "Endpoints"),
    ("tool", "Tools"),
    ("component", "Components"),
    ("query", "Queries"),
    ("resource", "Resources"),
)
_AMOUNTS = ("critical_ns", "calls", "total_ns")
"""What is 0 where a thing did not occur."""
_MOST_ROWS = 200
_MOST_PATHS = 60
_VERDICTS = {"no evidence": "no evidence of change"}


def build(context: Context) -> dict[str, Any]:
    """Return the tables of what changed, and what the page needs to compare populations."""
    baseline = context.baseline
    facts = context.facts
    values: dict[str, Any] = {
        "baseline": baseline,
        "comparable": bool(facts["entries"] or facts["samples"]),
        "data": {"baseline": None},
    }
    if baseline is None:
        return values
    contrast = baseline.contrast
    runs = [int((contrast.side_of_run == side).sum()) for side in (0, 1)]
    tables = [_differences(baseline, kind, title) for kind, title in _TABLES]
    tables += [
        _paths(baseline.comparison.request_paths, "Operations of requests, by path", "operation"),
        _paths(baseline.comparison.code_paths, "Code that ran, by path", "code"),
    ]
    values |= {
        "answer": words.answer(baseline.comparison),
        "tables": [table for table in tables if table["rows"]],
        "notes": contrast.notes,
        "method": f"Welch's test over {runs[0]} and {runs[1]} {contrast.unit}s; intervals of "
        f"{1 - LEVEL:.1%}; p is corrected for the number of tests of its kind (Benjamini and "
        f"Hochberg); a change under {MINIMUM_EFFECT:.0%} is not called one.",
        "data": {
            "baseline": {"name": baseline.name, "unit": contrast.unit},
            **_requests(context, baseline),
            **_code(context, baseline),
        },
    }
    return values


# ---- tables ----


def _differences(baseline: Baseline, kind: str, title: str) -> dict[str, Any]:
    found = baseline.comparison.differences.filter(kind=kind)
    there = [_names(baseline, side, kind) for side in (0, 1)]
    rows = [_row(row, there) for row in found.iter_rows(named=True)]
    return _table(title, kind, [row for row in rows if row is not None], _MOST_ROWS)


def _names(baseline: Baseline, side: int, kind: str) -> set[str] | None:
    """Return the endpoints or tools of one side: a figure lacks where there were few requests."""
    if kind not in ("endpoint", "tool"):
        return None
    contrast = baseline.contrast
    parts = [
        part for part in contrast.parts if contrast.side_of_run[part.times[0].first_run] == side
    ]
    names = (part.tables.columns("requests", kind)[kind].drop_nulls().unique() for part in parts)
    return {name for one in names for name in one}


def _row(row: dict[str, Any], there: list[set[str] | None]) -> dict[str, Any] | None:
    before, after = row["before"], row["after"]
    if before is None and after is None:
        return None
    measure = row["measure"]
    if before == after == 0:
        return None  # no errors on either side are no news
    verdict = _VERDICTS.get(row["verdict"], row["verdict"])
    if before is None or after is None:
        lacking = there[0] if before is None else there[1]
        too_few = lacking is not None and row["name"] in lacking
        verdict = "too few requests" if too_few else "new" if before is None else "went"
    elif measure in _AMOUNTS and (before == 0) != (after == 0):
        verdict = _came("new" if before == 0 else "went", row["verdict"])
    if verdict == _VERDICTS["no evidence"] and _nothing(row):
        verdict = "no change"
    return {
        "name": row["name"] if row["kind"] != "component" else words.label(row),
        "detail": row["detail"] if row["kind"] == "resource" else None,
        "figure": words.MEASURES[measure],
        "before": words.amount(before, row),
        "after": words.amount(after, row),
        "change": words.relative(row["change"], row),
        "interval": words.interval(row),
        "p": _probability(row["p_adjusted"]),
        "verdict": verdict,
    }


def _nothing(row: dict[str, Any]) -> bool:
    """Return whether a change and both ends of its interval are nothing as they are written."""
    ends = [row[name] for name in ("change", "low", "high")]
    nothing = {words.relative(sign * 0.0, row).lstrip("+−") for sign in (1, -1)}
    return all(end is not None and words.relative(end, row).lstrip("+−") in nothing for end in ends)


def _came(verdict: str, tested: str) -> str:
    """Say of what one side lacks whether that could be chance."""
    return verdict if tested in words.CHANGED else f"{verdict}, may be chance"


def _probability(p: float | None) -> str:
    if p is None:
        return units.MISSING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _table(title: str, name: str, rows: list[dict[str, Any]], most: int) -> dict[str, Any]:
    """Put what changed first; `rows` come with the surest first."""
    order = {"grew": 0, "shrank": 0, "new": 1, "went": 1, "not tested": 4, "too few requests": 5}
    rows = sorted(rows, key=lambda row: order.get(row["verdict"], 2))
    counts = {
        verdict: sum(row["verdict"] == verdict for row in rows)
        for verdict in ("grew", "shrank", "new", "went")
    }
    said = ", ".join(f"{number} {verdict}" for verdict, number in counts.items() if number)
    return {
        "title": title,
        "name": name,
        "said": said or "no evidence of change",
        "changed": bool(said),
        "rows": rows[:most],
        "left": max(len(rows) - most, 0),
    }


def _paths(paths: pl.DataFrame, title: str, name: str) -> dict[str, Any]:
    """Return the paths whose own time changed most, those with a verdict first."""
    size = (pl.col("self_after") - pl.col("self_before")).abs()
    told = paths.filter(
        pl.col("verdict").is_in(words.CHANGED)
        | ((pl.col("state") != "both") & (pl.col("verdict") != "not tested"))
    ).sort(size, descending=True)
    # Without requests own time is a share of all, and all shares together are one.
    shares = float((paths["self_before"] + paths["self_after"]).sum()) <= 2.0 + 1e-9
    write = units.percent if shares else units.duration
    rows = []
    for row in told.iter_rows(named=True):
        verdict = row["verdict"]
        if row["state"] != "both":
            verdict = _came("new" if row["state"] == "new" else "went", verdict)
        rows.append(
            {
                "name": row["label"],
                "detail": row["group"],
                "figure": "share" if shares else "self/req",
                "before": write(row["self_before"]),
                "after": write(row["self_after"]),
                "change": _path_change(row, "change", write),
                "interval": f"{_path_change(row, 'low', write)} to "
                f"{_path_change(row, 'high', write)}",
                "p": _probability(row["p_adjusted"]),
                "verdict": verdict,
            }
        )
    return _table(title, name, rows, _MOST_PATHS)


def _path_change(row: dict[str, Any], name: str, write: Any) -> str:
    value = row[name]
    if value is None:
        return units.MISSING
    sign = "+" if value >= 0 else "−"
    return f"{sign}{(units.percent if row['self_before'] > 0 else write)(abs(value))}"


# ---- what the page compares ----


def _contexts(baseline: Baseline) -> list[Context]:
    return [Context(part.tables, [], "") for part in baseline.parts]


def _requests(context: Context, baseline: Baseline) -> dict[str, Any]:
    """Return the joined tree of requests, and the baseline's sums in it."""
    others = _contexts(baseline)
    if not all(one.tables.has_rows("span_tree") for one in (context, *others)):
        return {}
    trees = [one.tables.frame("span_tree") for one in (context, *others)]
    tree = joined(trees, SPAN_LABELS)
    frames, block = [], 0
    for one, part, ids in zip(others, baseline.parts, tree.node_ids[1:], strict=True):
        cells = flame_requests.cells_of(one, one.population)
        keys = _entry_keys(one, blocks_of(part, one.population.entries["start_ns"], block))
        frames.append(
            cells.with_columns(node=pl.Series(ids[cells["node"].to_numpy()])).join(
                keys.select("index", *_GROUP), left_on="group", right_on="index"
            )
        )
        block += blocks(part)
    rows = pl.concat(frames)
    groups, numbered = _grouped(rows)
    cells = (
        numbered.group_by(flame_requests.CELL)
        .agg(pl.col(flame_requests.SUMS).sum())
        .sort(flame_requests.CELL)
    )
    return {
        "requests": {
            "tree": flame_requests.tree_columns(tree.nodes),
            "map": tree.node_ids[0],
            "groups": groups,
            "cells": {
                name: cells[name].to_numpy()
                for name in (*flame_requests.CELL, "total_ns", "self_ns", "count")
            },
        }
    }


def _entry_keys(one: Context, block: Any) -> pl.DataFrame:
    """Return the entries of a capture with what they are grouped by."""
    return one.population.entries.select(
        "index",
        "endpoint",
        "tool",
        "service",
        status=pl.col("status_id").cast(pl.Int64),
        block=pl.Series(block, dtype=pl.Int64),
    )


def _grouped(rows: pl.DataFrame) -> tuple[dict[str, Any], pl.DataFrame]:
    """Number what rows are grouped by. Returns the groups as the page's columns, and the rows."""
    distinct = rows.select(_GROUP).unique().sort(_GROUP, nulls_last=True)
    distinct = distinct.with_columns(group=pl.int_range(pl.len(), dtype=pl.Int64))
    numbered = rows.drop("group", strict=False).join(
        distinct, on=_GROUP, nulls_equal=True, maintain_order="left"
    )
    strings = (
        pl.concat([distinct[name] for name in ("endpoint", "tool", "service")])
        .drop_nulls()
        .unique(maintain_order=True)
    )
    place = pl.int_range(len(strings), eager=True)

    def ids(name: str) -> Any:
        if not len(strings):
            return np.full(distinct.height, -1)
        return (
            distinct[name]
            .replace_strict(strings, place, default=-1, return_dtype=pl.Int64)
            .to_numpy()
        )

    columns = {
        "strings": strings.to_list(),
        **{name: ids(name) for name in ("endpoint", "tool", "service")},
        "status": distinct["status"].to_numpy(),
        "block": distinct["block"].to_numpy(),
    }
    return columns, numbered


def _code(context: Context, baseline: Baseline) -> dict[str, Any]:
    """Return the joined tree of code, and the baseline's samples in it, added up."""
    others = _contexts(baseline)
    if not all(one.tables.has_rows("code_tree") for one in (context, *others)):
        return {}
    trees = [one.tables.frame("code_tree") for one in (context, *others)]
    columns = ("node_id", "parent_id", "depth", "function", "module", "category", "file", "line")
    tree = joined([frame.select(columns) for frame in trees], CODE_LABELS)
    frames, block = [], 0
    for one, part, frame, ids in zip(
        others, baseline.parts, trees[1:], tree.node_ids[1:], strict=True
    ):
        samples, _ = flame_code.samples_of(one, frame)
        timed = samples["duration_ns"].null_count() < samples.height
        moments = samples["rel_ns"] + one.population.origin_ns
        entries = _entry_keys(one, np.zeros(one.population.entries.height, dtype=np.int64))
        rows = (
            samples.select(
                "state",
                "entry",
                node=pl.Series(ids[samples["stack"].to_numpy()]),
                duration=pl.col("duration_ns" if timed else "count").fill_null(0),
                block=pl.Series(blocks_of(part, moments, block)),
            )
            .with_columns(index=pl.col("entry").clip(0).cast(pl.UInt32))
            .join(entries.drop("block"), on="index", how="left", maintain_order="left")
        )
        known = pl.col("entry") >= 0
        frames.append(
            rows.with_columns(
                *(pl.when(known).then(name).alias(name) for name in ("endpoint", "tool")),
                service=pl.when(known).then("service"),
                # -1: of no request, -2: of several.
                status=pl.when(known).then(pl.col("status").fill_null(0)).otherwise("entry"),
            )
        )
        block += blocks(part)
    groups, numbered = _grouped(pl.concat(frames, how="vertical_relaxed"))
    keys = ("node", "state", "group")
    sums = numbered.group_by(keys).agg(pl.col("duration").sum()).sort(keys)
    timed = trees[0]["total_ns"].count() > 0
    return {
        "code": {
            "tree": flame_code.tree_columns(tree.nodes, timed),
            "map": tree.node_ids[0],
            "groups": groups,
            "cells": {name: sums[name].to_numpy() for name in (*keys, "duration")},
        }
    }
