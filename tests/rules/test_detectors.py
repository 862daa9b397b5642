"""Cases of a widely used product: our rules speak where it speaks, and are quiet where it is.

Thresholds that a case sets differently from the default are set in our rule too.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from perfkit.rules import evaluate
from perfkit.rules.fixed import FixedTables
from perfkit.rules.load import load_rules
from perfkit.rules.model import Rule
from tests.rules import transactions

# Detector -> our rule, and how its settings are called there.
DETECTORS: dict[str, tuple[str, dict[str, tuple[str, float]]]] = {
    "consecutive_db": ("db.consecutive-independent", {}),
    "consecutive_http": ("calls.serial-parallelisable", {}),
    "large_http_payload": ("net.large-payload", {"payload_size_threshold": ("large", 1)}),
    "n_plus_one_api_calls": (
        "calls.n-plus-one-api",
        {"count": ("min_calls", 1), "total_duration": ("min_time", 1e6)},
    ),
    "n_plus_one_db": ("db.n-plus-one", {"duration_threshold": ("min_time", 1e6)}),
    "m_n_plus_one_db": ("db.mn-plus-one", {}),
    "slow_db_query": ("db.slow-query", {}),
}
DIFFERENT = {
    "056-m_n_plus_one_db-quiet": "they want the common parent among the child spans; here it is "
    "the root itself, under which the same queries cost as much"
}
"""Cases in which we disagree on purpose, and why."""

RULES = {rule.id: rule for rule in load_rules()}


def tuned(rule: Rule, settings: Any, names: dict[str, tuple[str, float]]) -> Rule:
    """Return the rule with the numbers of the case."""
    params = dict(rule.params)
    for theirs, (ours, factor) in names.items():
        params[ours] = dataclasses.replace(params[ours], value=round(settings[theirs] * factor))
    return dataclasses.replace(rule, params=params)


def cases(folder: Path, detector: str) -> list[Path]:
    found = sorted((folder / "detectors").glob(f"*-{detector}-*.json"))
    assert found
    return found


def test_every_case_is_looked_at(shared_data: Path) -> None:
    names = {path.stem.split("-")[1] for path in (shared_data / "detectors").glob("*.json")}
    assert names == set(DETECTORS)


@pytest.mark.parametrize("detector", DETECTORS)
def test_our_rule_agrees(shared_data: Path, detector: str) -> None:
    rule_id, names = DETECTORS[detector]
    wrong = []
    for path in cases(shared_data, detector):
        case = transactions.load(path)
        rule = tuned(RULES[rule_id], case["settings"], names)
        tables = FixedTables({"spans": transactions.spans(case["event"])})
        (outcome,) = evaluate.run([rule], tables)
        if bool(outcome.findings) != bool(case["expected"]):
            wrong.append(path.stem)
    assert wrong == [name for name in DIFFERENT if f"-{detector}-" in name]
