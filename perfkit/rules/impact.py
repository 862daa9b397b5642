"""What a fix would save: the requests replayed with the spans that it changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from perfkit.analysis.session import Tables
from perfkit.analysis.what_if import savings
from perfkit.rules.model import IMPACT_COLUMNS, Rule, WhatIf
from perfkit.sql.execute import Limits, add_column, run_query
from perfkit.sql.guard import Value

MAX_REPLAYED = 5
"""Findings of one rule that are replayed, the largest first; ours, to bound the time."""

# A trace cannot show whether a call needs the answer of the one before it. Ours: at least half of
# what running side by side would bring.
_INDEPENDENT = 0.5

Rows = npt.NDArray[np.int64]


def add(
    findings: pl.DataFrame,
    rule: Rule,
    tables: Tables,
    params: Mapping[str, Value],
    limits: Limits,
) -> pl.DataFrame:
    """Return the findings with the columns of `IMPACT_COLUMNS`, and first and last seen.

    Null where the rule claims no saving. What is not replayed gets 0 to the plain total, which is
    an upper bound.
    """
    if rule.what_if is None:
        saved = ("saved_low_ratio", "saved_high_ratio")
        return findings.with_columns(
            (pl.col(name).cast(pl.Float64).clip(0, 1) if name in findings.columns else _NONE).alias(
                column
            )
            for name, column in zip(saved, IMPACT_COLUMNS, strict=True)
        )
    return _replayed(findings, rule.what_if, tables, params, limits)


_NONE = pl.lit(None, dtype=pl.Float64)


def _replayed(
    findings: pl.DataFrame,
    change: WhatIf,
    tables: Tables,
    params: Mapping[str, Value],
    limits: Limits,
) -> pl.DataFrame:
    numbered = findings.with_row_index("finding").with_columns(pl.col("finding").cast(pl.Int64))
    rows = run_query(change.rows, _With(tables, numbered), params, limits)
    grouped = rows.drop_nulls().unique(maintain_order=True).group_by("finding").agg("row")
    by_finding = {int(key): np.asarray(one, np.int64) for key, one in grouped.iter_rows()}
    tree = tables.frame("tree")
    factors = _factors(numbered, change, params)
    totals = np.array(
        [
            _plain_total(tree, by_finding.get(number, _EMPTY), factor[0])
            for number, factor in enumerate(factors)
        ]
    )
    request_ns = float(tables.frame("facts")["request_ns"].sum() or 0)
    bound = np.minimum(1.0, totals / request_ns) if request_ns else np.zeros(len(factors))
    low, high = np.zeros(len(factors)), bound
    for number in np.argsort(-totals, kind="stable")[:MAX_REPLAYED]:
        chosen = by_finding.get(int(number), _EMPTY)
        if chosen.size and request_ns:
            low[number], high[number] = _saving(tables, change, chosen, factors[number])
    starts = tree["start_ns"].to_numpy()
    return findings.with_columns(
        pl.Series(IMPACT_COLUMNS[0], low, dtype=pl.Float64),
        pl.Series(IMPACT_COLUMNS[1], high, dtype=pl.Float64),
        _seen("first_seen_ns", starts, by_finding, len(factors), last=False),
        _seen("last_seen_ns", starts, by_finding, len(factors), last=True),
    )


_EMPTY: Rows = np.empty(0, np.int64)


class _With(Mapping[str, pl.LazyFrame]):
    """The tables, and the findings as one more."""

    def __init__(self, tables: Tables, findings: pl.DataFrame) -> None:
        self._tables, self._findings = tables, findings

    def __getitem__(self, name: str) -> pl.LazyFrame:
        return self._findings.lazy() if name == "findings" else self._tables[name]

    def __iter__(self) -> Iterator[str]:
        yield "findings"
        yield from self._tables

    def __len__(self) -> int:
        return len(self._tables) + 1


def _factors(
    findings: pl.DataFrame, change: WhatIf, params: Mapping[str, Value]
) -> list[tuple[float, float]]:
    """Return for each finding what stays of the own time, at best and at worst."""
    if change.factor_low is None or change.factor_high is None:
        return [(0.0, 0.0)] * findings.height
    for name, factor in (("low", change.factor_low), ("high", change.factor_high)):
        findings = add_column(findings, f"factor_{name}", factor, params)
    best, worst = (
        findings[f"factor_{name}"].cast(pl.Float64).fill_null(1.0).fill_nan(1.0).clip(0.0, 1.0)
        for name in ("low", "high")
    )
    return [(min(pair), max(pair)) for pair in zip(best, worst, strict=True)]


def _plain_total(tree: pl.DataFrame, rows: Rows, factor: float) -> float:
    chosen = tree[rows]
    weighted = chosen["duration_ns"].cast(pl.Float64) * chosen["adjusted_count"]
    return float(weighted.sum() or 0.0) * (1.0 - factor)


def _saving(
    tables: Tables, change: WhatIf, rows: Rows, factors: tuple[float, float]
) -> tuple[float, float]:
    tree = tables.frame("tree")
    own = np.ones(tree.height)
    if change.parallel:
        parents = tree["parent_row"].gather(rows).fill_null(-1).to_numpy()
        order = np.argsort(parents, kind="stable")
        cuts = np.flatnonzero(np.diff(parents[order])) + 1
        groups = [group for group in np.split(rows[order], cuts) if group.size > 1]
        saved = savings(tables, own, parallel=groups).saved_ratio
        return _INDEPENDENT * saved, saved
    marked = _below(tree, rows) if change.subtree else rows
    best, worst = factors
    own[marked] = worst
    low = savings(tables, own).saved_ratio
    own[marked] = best
    if change.between:
        _scale_between(tables, rows, best, own)
    high = savings(tables, own).saved_ratio
    return min(low, high), max(low, high)


def _scale_between(tables: Tables, rows: Rows, factor: float, own: npt.NDArray[np.float64]) -> None:
    """Let the parents' own time between the first and the last of their rows shrink as well."""
    tree = tables.frame("tree")
    groups = (
        tree[rows]
        .filter(pl.col("parent_row").is_not_null())
        .group_by("parent_row")
        .agg(
            extent=pl.col("end_ns").max() - pl.col("start_ns").min(),
            inside=pl.col("duration_ns").sum(),
        )
    )
    parents = groups["parent_row"].to_numpy()
    own_ns = tables.frame("span_times")["self_ns"].gather(parents).cast(pl.Float64).to_numpy()
    between = np.maximum(0.0, (groups["extent"] - groups["inside"]).to_numpy())
    share = np.divide(between, own_ns, out=np.zeros(len(parents)), where=own_ns > 0)
    own[parents] = 1.0 - np.minimum(1.0, share) * (1.0 - factor)


def _below(tree: pl.DataFrame, rows: Rows) -> Rows:
    """Return the rows and everything below them: the tree lists a subtree right after its top."""
    opened = np.zeros(tree.height + 1, np.int64)
    np.add.at(opened, rows, 1)
    np.add.at(opened, rows + tree["subtree"].to_numpy()[rows], -1)
    return np.flatnonzero(np.cumsum(opened[:-1]) > 0)


def _seen(
    name: str, starts: Rows, by_finding: Mapping[int, Rows], count: int, *, last: bool
) -> pl.Series:
    chosen = (by_finding.get(number, _EMPTY) for number in range(count))
    pick = np.max if last else np.min
    values = [int(pick(starts[rows])) if rows.size else None for rows in chosen]
    return pl.Series(name, values, dtype=pl.Int64)
