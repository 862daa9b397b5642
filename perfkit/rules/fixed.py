"""Tables with given rows, and the tests that rules carry, run over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import polars as pl

from perfkit.analysis.session import Tables
from perfkit.capture import Capture, CaptureInfo
from perfkit.model import BY_NAME
from perfkit.rules.evaluate import run
from perfkit.rules.model import ExpectedFinding, Finding, Outcome, Rule, RuleTest


class _Rows:
    """Stands in for a capture: captured tables with given rows; the others are empty."""

    path = Path("given-rows.perfkit")
    finished = True
    info = CaptureInfo(id="given-rows", created_ns=0)

    def __init__(self, frames: Mapping[str, pl.DataFrame]) -> None:
        self._frames = frames

    def table(self, name: str) -> pl.LazyFrame:
        frame = self._frames.get(name)
        return (BY_NAME[name].empty() if frame is None else frame).lazy()


class FixedTables(Tables):
    """Tables with given rows. Derived tables that are not given are computed from what is."""

    def __init__(self, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        captured = {name: frame(name, rows[name]) for name in rows if name in BY_NAME}
        super().__init__(cast(Capture, _Rows(captured)))
        for name in rows:
            if name not in BY_NAME:
                self._frames[name] = frame(name, rows[name])


def frame(name: str, rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Return rows as the table `name`: columns that are not given are null, or as is usual."""
    empty = _empty(name)
    filled = [{**_USUAL.get(name, {}), **row} for row in rows]
    given = {column for row in filled for column in row}
    columns = [
        pl.Series(column, [row.get(column) for row in filled], dtype=dtype, strict=False)
        for column, dtype in empty.schema.items()
        if column in given
    ]
    # Most columns are not given: to make each of them takes longer than the rest of a test.
    if not columns:
        return empty.clear(len(rows))
    return pl.concat([empty, pl.DataFrame(columns)], how="diagonal", rechunk=True)


_USUAL: dict[str, dict[str, Any]] = {
    "spans": {
        "trace_hi": 0,
        "trace_lo": 1,
        "parent_inferred": False,
        "service": "shop",
        "kind": "internal",
        "status": "unset",
        "adjusted_count": 1.0,
    },
    "samples": {"count": 1, "pid": 1, "tid": 1, "thread_name": "MainThread", "state": "running"},
    "frames": {"category": "app"},
}
"""What a test need not say."""


@lru_cache(maxsize=128)
def _empty(name: str) -> pl.DataFrame:
    return BY_NAME[name].empty() if name in BY_NAME else _nothing().frame(name).clear()


@lru_cache(maxsize=1)
def _nothing() -> Tables:
    return Tables(cast(Capture, _Rows({})))


def check(rule: Rule, test: RuleTest) -> str | None:
    """Run one embedded test and return what is wrong, or None."""
    outcome = run([rule], FixedTables(test.tables))[0]
    if outcome.state == "error":
        return f"the rule failed: {outcome.reason}"
    if isinstance(test.expect, str):
        return _compare_state(outcome, test.expect)
    if len(outcome.findings) != len(test.expect):
        seen = "; ".join(one.title for one in outcome.findings) or outcome.reason or outcome.state
        return f"expected {len(test.expect)} findings, got {len(outcome.findings)}: {seen}"
    faults = (
        _compare(found, expected)
        for found, expected in zip(outcome.findings, test.expect, strict=True)
    )
    return next((fault for fault in faults if fault), None)


def _compare_state(outcome: Outcome, state: str) -> str | None:
    if outcome.state == state:
        return None
    got = outcome.findings[0].message if outcome.findings else outcome.reason
    return f"expected {state}, got {outcome.state}: {got}"


def _compare(found: Finding, expected: ExpectedFinding) -> str | None:
    if found.severity != expected.severity:
        return f"expected severity {expected.severity}, got {found.severity}: {found.message}"
    for name, value in expected.key.items():
        if found.key.get(name) != value:
            return f"expected {name} = {value!r} in the key, got {found.key}"
    text = _all_text(found)
    for says in expected.says:
        if says not in text:
            return f"expected the text {says!r} in: {text}"
    return None


def _all_text(found: Finding) -> str:
    settings = [f"{one['name']}={one['value']}" for one in found.fix["settings"]]
    parts = [found.title, found.message, found.risk or "", found.why, found.fix["summary"]]
    return " | ".join([*parts, *found.fix["steps"], *settings, found.fix["verify"]])
