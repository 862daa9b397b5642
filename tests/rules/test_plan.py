from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfkit.rules.evaluate import run
from perfkit.rules.fixed import FixedTables
from perfkit.rules.load import load_rules
from perfkit.rules.model import Outcome, Severity
from perfkit.rules.plan import Plan, plan

MS = 1_000_000


def requests(statements: list[tuple[str, int]]) -> list[dict[str, Any]]:
    """Return twenty requests that make these queries, of so many ms, one after the other."""
    rows = []
    for number in range(1, 21):
        at = number * 10**9
        root = {"trace_lo": number, "span_id": 1, "kind": "server", "name": "GET /x"}
        rows.append(root | {"endpoint": "GET /x", "start_ns": at, "service": "app"})
        for place, (statement, length) in enumerate(statements, 2):
            rows.append(
                {"trace_lo": number, "span_id": place, "parent_id": 1, "kind": "client"}
                | {"name": "SELECT", "db_system": "sqlite", "db_statement": statement}
                | {"start_ns": at, "duration_ns": length * MS, "service": "app"}
            )
            at += length * MS
        rows[-len(statements) - 1]["duration_ns"] = at + 10 * MS - number * 10**9
    return rows


def looked(tables: FixedTables) -> list[Outcome]:
    return run([rule for rule in load_rules() if rule.id == "db.slow-query"], tables)


def outcomes(*statements: tuple[str, int]) -> list[Outcome]:
    return looked(FixedTables({"spans": requests([*statements])}))


def planned(*statements: tuple[str, int]) -> Plan:
    tables = FixedTables({"spans": requests([*statements])})
    return plan(looked(tables), tables)


SLOW = ("SELECT a FROM t WHERE b = 1", 600)
OTHER = ("SELECT c FROM u WHERE d = 1", 300)


def test_savings_of_steps_add_up_to_what_they_save_together() -> None:
    found = planned(SLOW, OTHER)
    assert len(found.steps) == 2
    assert found.together is not None
    for end in ("saved_low_ratio", "saved_high_ratio"):
        added = sum(getattr(step, end) for step in found.steps)
        assert added == pytest.approx(found.together[end])
    # Queries to a fifth or a hundredth: of 910 ms stay 10 + 120 + 60, or 10 + 6 + 3.
    assert found.together["p95_now_ns"] == 910 * MS
    assert found.together["p95_high_ns"] == 190 * MS
    assert found.together["p95_low_ns"] == 19 * MS
    assert "p95 from 910 ms to 19 ms (at worst 190 ms)" in found.words()


def test_a_saving_that_was_not_replayed_is_not_told_as_part_of_the_sum() -> None:
    found = planned(SLOW, OTHER)
    assert found.words().startswith("Done together they save ")
    assert found.steps[0].words().endswith(" % of request time")
    estimated = replace(found.steps[0], replayed=False)
    assert estimated.words().endswith(" % of request time, taken by itself")
    mixed = replace(found, steps=(estimated, found.steps[1]))
    assert mixed.words().startswith("Number 2 alone saves ")
    assert mixed.words().endswith(" may overlap with that and with each other.")


def test_steps_beside_a_risk_are_not_told_as_if_it_saved_too() -> None:
    found = planned(SLOW, OTHER)
    risk = replace(found.steps[0], saved_low_ratio=None, saved_high_ratio=None, replayed=False)
    told = replace(found, steps=(risk, found.steps[1])).words()
    assert told.startswith("Number 2 alone saves ")
    assert "overlap" not in told


@pytest.mark.parametrize(("severity", "steps"), [("high", 1), ("medium", 1), ("low", 0)])
def test_without_requests_what_is_serious_is_a_step(severity: Severity, steps: int) -> None:
    outcome = next(o for o in outcomes(SLOW) if o.findings)
    unsaid = replace(
        outcome.findings[0], severity=severity, impact_low_ratio=None, impact_high_ratio=None
    )
    found = plan([replace(outcome, findings=[unsaid], changes={})], FixedTables({}))
    assert len(found.steps) == steps
    assert found.words() == ""


@pytest.mark.parametrize(("severity", "steps"), [("medium", 1), ("low", 0)])
def test_of_risks_what_is_serious_is_a_step(severity: Severity, steps: int) -> None:
    outcome = next(o for o in outcomes(SLOW) if o.findings)
    risk = replace(outcome.findings[0], severity=severity, risk="it runs out")
    found = plan([replace(outcome, findings=[risk], changes={})], FixedTables({}))
    assert len(found.steps) == steps


def test_nothing_found_is_no_plan() -> None:
    found = plan([], FixedTables({}))
    assert (found.steps, found.covered, found.together, found.words()) == ((), {}, None, "")
