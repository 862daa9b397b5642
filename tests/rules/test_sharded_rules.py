"""Every rule finds shard by shard what it finds in one piece, on the captures of its own tests."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import polars as pl
import pytest

from perfkit.analysis import sharded
from perfkit.analysis.session import Tables
from perfkit.analysis.sharded import Division, ShardedTables
from perfkit.engine import Here
from perfkit.model import BY_NAME
from perfkit.rules.evaluate import findings, run
from perfkit.rules.fixed import frame
from perfkit.rules.load import load_rules
from perfkit.rules.model import Finding, Rule, RuleTest
from perfkit.rules.plan import Plan, plan
from tests.analysis.build import Memory

SHARDS = 3
COPIES = 5
"""Tests are mostly of one trace; with as many copies of it no shard has them all."""


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask queries of every shard alone."""
    monkeypatch.setattr(sharded, "PART_SPANS", 1)


RULES = load_rules(tests=True)
CASES = [
    (rule, test)
    for rule in RULES
    for test in rule.tests
    if set(test.tables) <= set(BY_NAME) and "spans" in test.tables
]
# One of each rule.
FOUND = {
    rule.id: (rule, test) for rule, test in reversed(CASES) if not isinstance(test.expect, str)
}
ALONE = (
    *("cache.key-by-key", "calls.chatty", "calls.dominant-dependency", "capture.too-short"),
    *("db.deep-offset", "db.slow-write", "db.unindexable-search", "errors.unmarked"),
    *("mcp.list-per-call", "mcp.session-per-call", "net.http1-queueing", "pool.exhausted"),
    "trend.long-tail",
)
"""Rules that find nothing in the capture of all tests together, where much else goes on."""


def _capture(test: RuleTest) -> Memory:
    tables = {name: frame(name, rows) for name, rows in test.tables.items()}
    return Memory({name: _copied(rows) for name, rows in tables.items()})


def _copied(rows: pl.DataFrame) -> pl.DataFrame:
    if "trace_lo" not in rows.columns:
        return rows
    trace = pl.col("trace_lo").fill_null(0)
    return pl.concat(rows.with_columns(trace + 1_000_000 * copy) for copy in range(COPIES))


def _together() -> Memory:
    """Return the spans of all tests in one capture, each test's in services of its own."""
    spans = []
    for number, (_, test) in enumerate(CASES):
        rows = _copied(frame("spans", test.tables["spans"]))
        trace = pl.col("trace_lo").fill_null(0) + 1_000_000_000 * (number + 1)
        # No two begin at once: whose answer a cache keeps would depend on the order of rows.
        apart = pl.col("start_ns") + trace // 1_000_000
        service = pl.format("{}-{}", "service", pl.lit(number))
        spans.append(rows.with_columns(trace, apart, service))
    return Memory({"spans": pl.concat(spans).with_columns(scope=pl.lit("one"))})


def _same(one: Any, other: Any) -> bool:
    """Whether values are equal, numbers but for the order in which they were added up."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _told(found: Finding) -> dict[str, Any]:
    told = asdict(found)
    # Rows of `tree` are numbered shard by shard.
    for evidence in told["evidence"]:
        for name in [name for name in evidence if name == "row" or name.endswith("_row")]:
            del evidence[name]
    return told


def _steps(chosen: Plan) -> dict[str, Any]:
    steps = [
        (one.finding.fingerprint, one.saved_low_ratio, one.saved_high_ratio) for one in chosen.steps
    ]
    return {"steps": steps, "covered": chosen.covered, "together": chosen.together}


def assert_equal_findings(rules: list[Rule], whole: Tables, parts: Tables) -> list[Finding]:
    """Return the findings, which are the same in both; so are the plans."""
    one, other = run(rules, whole), run(rules, parts)
    for left, right in zip(one, other, strict=True):
        assert (left.rule, left.state) == (right.rule, right.state), right.reason
    found = findings(one)
    for expected, got in zip(found, findings(other), strict=True):
        told = _told(expected), _told(got)
        for name in told[0]:
            assert _same(told[0][name], told[1][name]), f"{expected.rule_id} {name}"
    assert _same(_steps(plan(one, whole)), _steps(plan(other, parts)))
    return found


def _assert_equal(rules: list[Rule], capture: Memory) -> list[Finding]:
    parts = ShardedTables(Division(capture, Here(), SHARDS))
    try:
        return assert_equal_findings(rules, Tables(capture), parts)
    finally:
        parts.close()


@pytest.mark.parametrize("name", ALONE)
def test_findings_are_those_of_one_piece(name: str) -> None:
    rule, test = FOUND[name]
    assert _assert_equal([rule], _capture(test))


@pytest.mark.slow
def test_so_they_are_of_all_rules_over_all_of_it() -> None:
    found = _assert_equal(list(RULES), _together())
    silent = FOUND.keys() - {one.rule_id for one in found}
    assert silent <= set(ALONE), "name in ALONE what finds something only in its own capture"
