"""What the rules print as saving, beside what the same incident takes when it is mended.

The incidents are made up: requests arrive, wait for a connection of a pool, hold it, and go on. The
pool of the size that a finding proposes is played through by a loop that knows nothing of replays.
"""

from __future__ import annotations

import heapq
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.analysis.session import Tables
from perfkit.rules import evaluate
from perfkit.rules.load import load_rules
from perfkit.rules.model import Finding, Rule
from perfkit.sql.execute import add_column
from tests.analysis.build import Memory, S, span_columns

MS = 1_000_000
RULES = [rule for rule in load_rules() if rule.id.startswith(("pool.", "db.", "cache.", "calls."))]
EXHAUSTED = [rule for rule in RULES if rule.id == "pool.exhausted"]
Request = tuple[int, int, int]
"""When it arrives, how long it holds the connection, how long it goes on: ms."""


def played(requests: list[Request], size: int) -> list[tuple[int, int, int]]:
    """Return for each request when it gets its connection, gives it back and ends: ms."""
    free = [0] * size
    found = []
    for arrives, holds, goes_on in requests:
        gets = max(arrives, heapq.heappop(free))
        heapq.heappush(free, gets + holds)
        found.append((gets, gets + holds, gets + holds + goes_on))
    return found


def incident(requests: list[Request], size: int, *, spans: bool, metrics: bool) -> Tables:
    """Return the capture of an incident; what waits is in spans, in the pool's metrics, or both."""
    rows: list[S] = []
    times = played(requests, size)
    for number, ((arrives, _, _), (gets, back, ends)) in enumerate(
        zip(requests, times, strict=True), 1
    ):
        top = 10 * number
        on = {"service": "shop", "pid": 1}
        sql = {"kind": "client", "db_system": "postgresql", **on}
        rows.append(
            S(top, arrives * MS, ends * MS, trace=number, kind="server", endpoint="GET /a", **on)
        )
        rows.append(S(top + 1, arrives * MS, back * MS, top, number, name="use", **on))
        if spans:
            rows.append(S(top + 2, arrives * MS, gets * MS, top + 1, number, name="connect", **sql))
        rows.append(
            S(top + 3, gets * MS, back * MS, top + 1, number, name="SELECT",
              db_statement=f"SELECT {number}", **sql)
        )  # fmt: skip
    points: list[dict[str, Any]] = []
    if metrics:
        pool = '{"db.client.connection.pool.name":"store","db.client.connection.state":"used"}'
        end = max(ends for _, _, ends in times)
        for at in range(0, end, 100):
            used = sum(gets <= at < back for gets, back, _ in times)
            waiting = sum(
                arrives <= at < gets
                for (arrives, _, _), (gets, _, _) in zip(requests, times, strict=True)
            )
            for name, value in (("count", used), ("max", size), ("pending_requests", waiting)):
                points.append(
                    {"ts_ns": at * MS, "name": f"db.client.connection.{name}", "kind": "gauge",
                     "value": float(value), "attributes": pool, "service": "shop"}
                )  # fmt: skip
    columns = {name: [one.get(name) for one in points] for name in (points[0] if points else {})}
    made: dict[str, Any] = {"spans": span_columns(rows)}
    if points:
        made["metrics"] = columns
    return Tables(Memory(made))


def pool_findings(tables: Tables, rules: list[Rule] = RULES) -> list[Finding]:
    outcomes = evaluate.run(rules, tables)
    assert not [one.rule.id for one in outcomes if one.state == "error"]
    return [one for one in evaluate.findings(outcomes) if one.rule_id == "pool.exhausted"]


requests = st.lists(
    st.tuples(st.integers(1, 60), st.integers(20, 400), st.integers(0, 300)),
    min_size=30,
    max_size=90,
).map(
    # Arrivals one after another: each so long after the one before.
    lambda drawn: [
        (sum(gap for gap, _, _ in drawn[: number + 1]), holds, goes_on)
        for number, (_, holds, goes_on) in enumerate(drawn)
    ]
)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(requests, st.integers(1, 5), st.booleans())
def test_a_larger_pool_saves_what_is_printed(
    drawn: list[Request], size: int, metrics: bool
) -> None:
    tables = incident(drawn, size, spans=True, metrics=metrics)
    for finding in pool_findings(tables, EXHAUSTED):
        wanted = int(finding.evidence[0]["wanted_size"])
        now, then = (
            sum(
                ends - arrives
                for (arrives, _, _), (_, _, ends) in zip(drawn, played(drawn, each), strict=True)
            )
            for each in (size, wanted)
        )
        saved = 1 - then / now
        assert finding.impact_low_ratio is not None
        assert finding.impact_high_ratio is not None
        assert finding.impact_low_ratio - 0.02 <= saved <= finding.impact_high_ratio + 0.02


def test_where_nobody_knows_how_long_they_waited_no_saving_is_claimed() -> None:
    drawn = [(number * 60, 350, 50) for number in range(100)]
    (known,) = pool_findings(incident(drawn, 5, spans=True, metrics=True))
    assert known.impact_high_ratio == pytest.approx(0.543, abs=0.01)
    (unknown,) = pool_findings(incident(drawn, 5, spans=False, metrics=True))
    assert (unknown.impact_low_ratio, unknown.impact_high_ratio) == (0.0, 0.0)


SAVING = [rule for rule in load_rules() if "saved_high_ratio" in rule.derive]


@pytest.mark.parametrize("rule", SAVING, ids=lambda rule: rule.id)
def test_of_what_is_not_known_nothing_is_saved(rule: Rule) -> None:
    """LEAST and GREATEST pass over what is null: LEAST(1, null) is all of the time."""
    known = {"request_ns", "entries", "duration_ns", "recorded_ns", "running_ns"}
    values = {name: 10**10 if name in known else None for name in rule.query.columns}
    row = pl.DataFrame([values], schema=dict.fromkeys(values, pl.Float64))
    params = {name: one.value for name, one in rule.params.items()}
    needed = _needed(rule, "saved_high_ratio")
    for name, expression in rule.derive.items():
        if name in needed:
            row = add_column(row, name, expression, params)
    assert (row["saved_high_ratio"].item() or 0.0) == 0.0


def _needed(rule: Rule, name: str) -> set[str]:
    """Return a derived column, and those that it is made of."""
    used = rule.derive[name].columns & rule.derive.keys()
    return {name}.union(*(_needed(rule, one) for one in used))
