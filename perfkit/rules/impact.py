"""What a fix would save: the requests replayed with what it changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl

from perfkit.analysis.replay import mends
from perfkit.analysis.replay.edits import Edits, scaled
from perfkit.analysis.replay.what_if import Change, saved_range
from perfkit.analysis.session import Tables
from perfkit.rules.model import IMPACT_COLUMNS, Rule, WhatIf
from perfkit.sql.checked import Expression
from perfkit.sql.execute import Limits, add_column
from perfkit.sql.write import Value

MAX_REPLAYED = 5
"""Findings of one rule that are replayed, those that take most time first; ours, to bound the
time."""

_SHORT_LIVED = 0.2
"""Ours: at worst, a cache may keep its answers for this part of the lifetime that is proposed."""

Rows = npt.NDArray[np.int64]
Changes = list[Change | None]


def add(
    findings: pl.DataFrame,
    rule: Rule,
    tables: Tables,
    params: Mapping[str, Value],
    limits: Limits,
) -> tuple[pl.DataFrame, Changes]:
    """Return the findings with the columns of `IMPACT_COLUMNS`, and their changes if replayed.

    Null where the rule claims no saving. Where nothing of a finding can be replayed, it is what the
    rule derives itself; where there are more than `MAX_REPLAYED`, that of the others is 0 to the
    plain total, an upper bound. What is replayed in spans says first and last seen too.
    """
    claimed = [
        findings[name].cast(pl.Float64).clip(0, 1)
        if name in findings.columns
        else pl.Series([None] * findings.height, dtype=pl.Float64)
        for name in ("saved_low_ratio", "saved_high_ratio")
    ]
    if rule.what_if is None:
        columns = zip(IMPACT_COLUMNS, claimed, strict=True)
        return findings.with_columns(one.alias(name) for name, one in columns), [
            None
        ] * findings.height
    return _Impact(findings, rule.what_if, tables, params, limits).add(claimed)


class _Impact:
    """The findings of one rule, and what each of them changes."""

    def __init__(
        self,
        findings: pl.DataFrame,
        change: WhatIf,
        tables: Tables,
        params: Mapping[str, Value],
        limits: Limits,
    ) -> None:
        self._numbered = findings.with_row_index("finding").with_columns(
            pl.col("finding").cast(pl.Int64)
        )
        self._findings, self._change, self._tables, self._params = findings, change, tables, params
        self._low, self._high = self._factors()
        query = change.rows or change.times
        self._subjects: dict[int, pl.DataFrame] = {}
        self._spans: dict[int, pl.DataFrame] = {}
        if query is not None:
            beside = {"findings": self._numbered.lazy()}
            # A dependency may be called by every request of a capture that is in shards.
            many = replace(limits, result_rows=max(limits.result_rows, limits.joined_rows))
            found = tables.answer(query, params, many, beside)
            key = "row" if change.rows else "start_ns"
            found = found.drop_nulls(["finding", key]).unique(maintain_order=True)
            self._subjects = _by_finding(found)
            if change.rows:
                of_span = ("duration_ns", "adjusted_count", "start_ns")
                spans = tables.picked("tree", found["row"].to_numpy(), *of_span)
                self._spans = _by_finding(spans.with_columns(found["finding"]))

    def add(self, claimed: Sequence[pl.Series]) -> tuple[pl.DataFrame, Changes]:
        """Return the findings with their impact, and their changes."""
        count = self._findings.height
        request_ns = float(self._tables.frame("facts")["request_ns"].sum() or 0)
        totals = [self._plain_total_ns(number) for number in range(count)]
        order = np.argsort([-total for total in totals], kind="stable")
        chosen = order[:MAX_REPLAYED] if request_ns else order[:0]
        changes: Changes = [None] * count
        low, high = ([*one] for one in claimed)
        for number in range(count):
            # Of requests that nobody recorded no share is known, not even none.
            if high[number] is None and request_ns:
                low[number], high[number] = 0.0, min(1.0, totals[number] / request_ns)
        for number in chosen.tolist():
            change = self._change_of(number)
            if change != Change(Edits(), Edits()):
                changes[number] = change
                low[number], high[number] = saved_range(self._tables, change)
        columns = [
            pl.Series(name, one, dtype=pl.Float64)
            for name, one in zip(IMPACT_COLUMNS, (low, high), strict=True)
        ]
        return self._findings.with_columns(*columns, *self._seen()), changes

    def _factors(self) -> tuple[list[float], list[float]]:
        """Return for each finding what stays at best, and at worst."""
        found = []
        for factor in (self._change.factor_low, self._change.factor_high):
            values = self._values(factor)
            found.append([1.0 if one is None else min(1.0, max(0.0, one)) for one in values])
        pairs = list(zip(*found, strict=True))
        return [min(pair) for pair in pairs], [max(pair) for pair in pairs]

    def _values(self, expression: Expression | None) -> list[float | None]:
        """Return the value of an expression for each finding."""
        if expression is None:
            return [None] * self._findings.height
        values = add_column(self._numbered, "value_", expression, self._params)["value_"]
        return values.cast(pl.Float64).fill_nan(None).to_list()

    def _rows(self, number: int) -> Rows:
        found = self._subjects.get(number)
        return _EMPTY if found is None or not self._change.rows else found["row"].to_numpy()

    def _plain_total_ns(self, number: int) -> float:
        """Return how much time it is about; what of it would be saved the replay tells."""
        if self._change.rows:
            chosen = self._spans.get(number)
            if chosen is None:
                return 0.0
            weighted = chosen["duration_ns"].cast(pl.Float64) * chosen["adjusted_count"]
            kept = self._low[number] if self._change.factor_low else 0.0
            return float(weighted.sum() or 0.0) * (1.0 - kept)
        found = self._subjects.get(number)
        return 0.0 if found is None else float(found["duration_ns"].sum())

    def _change_of(self, number: int) -> Change:
        if self._change.rows is None:
            return self._freed(number)
        return Change(*(self._edits(number, at_best=one) for one in (False, True)))

    def _edits(self, number: int, *, at_best: bool) -> Edits:
        """Return what changes of rows."""
        change, tables = self._change, self._tables
        stays = (self._low if at_best else self._high)[number]
        rows = self._rows(number)
        if not rows.size:
            return Edits()
        if change.parallel:
            return mends.side_by_side(tables, rows, typical=at_best)
        if change.places is not None:
            now, then = (self._values(one)[number] for one in (change.places_now, change.places))
            places = (None if now is None else max(1, int(now)), max(1, int(then or 1)))
            return mends.places(tables, rows, *places, relative=not at_best)
        if change.lifetime is not None:
            lifetime = self._values(change.lifetime)[number] or 0.0
            lifetime_ns = int(lifetime * (1.0 if at_best else _SHORT_LIVED))
            return mends.cached(tables, self._subjects[number], lifetime_ns, stays)
        whole = mends.below if change.subtree else mends.with_drivers
        edits = scaled(whole(tables, rows), stays)
        if change.between:
            # What a loop does with each row may go with the row, or half of it.
            edits += mends.between(tables, rows, stays if at_best else (1.0 + stays) / 2)
        return edits

    def _freed(self, number: int) -> Change:
        """Return what changes of times on threads."""
        times = self._subjects.get(number)
        if self._change.code:
            row = self._findings.row(number, named=True)
            own = self._change.code == "self"
            times = mends.code_times(self._tables, row["function"], row["file"], own=own)
        if times is None or times.is_empty():
            return Change(Edits(), Edits())
        free = mends.loop_freed if self._change.loop else mends.freed
        return Change(*free(self._tables, times, (self._high[number], self._low[number])))

    def _seen(self) -> list[pl.Series]:
        """Return when what is changed was first and last seen, where that is spans."""
        if not self._change.rows:
            return []
        each = [self._spans.get(number) for number in range(self._findings.height)]
        starts = [None if one is None else one["start_ns"] for one in each]
        first = [None if one is None else one.min() for one in starts]
        last = [None if one is None else one.max() for one in starts]
        return [
            pl.Series(name, values, pl.Int64)
            for name, values in (("first_seen_ns", first), ("last_seen_ns", last))
        ]


def _by_finding(rows: pl.DataFrame) -> dict[int, pl.DataFrame]:
    return {
        int(one["finding"][0]): one.drop("finding")
        for one in rows.partition_by("finding", maintain_order=True)
    }


_EMPTY: Rows = np.empty(0, np.int64)
