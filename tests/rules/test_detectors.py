"""Cases of a widely used product: our rules speak where it speaks, and are quiet where it is.

Thresholds that a case sets differently from the default are set in our rule too.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from perfkit.rules import evaluate
from perfkit.rules.fixed import FixedTables
from perfkit.rules.load import load_rules
from perfkit.rules.model import Rule
from tests.importers.memory import imported
from tests.rules import transactions

# Detector -> our rule, and how its settings are called there.
DETECTORS: dict[str, tuple[str, dict[str, tuple[str, float]]]] = {
    "consecutive_db": (
        "db.consecutive-independent",
        {
            "min_time_saved": ("min_saved", 1e6),
            "min_time_saved_ratio": ("min_share", 1),
            "span_duration_threshold": ("min_query", 1e6),
        },
    ),
    "consecutive_http": (
        "calls.serial-parallelisable",
        {
            "min_time_saved": ("min_saved", 1e6),
            "consecutive_count_threshold": ("min_calls", 1),
            "max_duration_between_spans": ("max_gap", 1e6),
        },
    ),
    "large_http_payload": ("net.large-payload", {"payload_size_threshold": ("large", 1)}),
    "n_plus_one_api_calls": (
        "calls.n-plus-one-api",
        {"count": ("min_calls", 1), "total_duration": ("min_time", 1e6)},
    ),
    "n_plus_one_db": ("db.n-plus-one", {"duration_threshold": ("min_time", 1e6)}),
    "m_n_plus_one_db": ("db.mn-plus-one", {}),
    "slow_db_query": ("db.slow-query", {"duration_threshold": ("slow", 1e6)}),
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
    given = settings[0] if isinstance(settings, list) else settings
    for theirs, (ours, factor) in names.items():
        value = given[theirs] * factor
        value = round(value) if value >= 1 else value
        params[ours] = dataclasses.replace(params[ours], value=value)
    return dataclasses.replace(rule, params=params)


def cases(folder: Path, detector: str) -> list[Path]:
    found = sorted((folder / "detectors").glob(f"*-{detector}-*.json"))
    assert found
    return found


def test_every_case_is_looked_at(shared_data: Path) -> None:
    names = {path.stem.split("-")[1] for path in (shared_data / "detectors").glob("*.json")}
    assert names == set(DETECTORS)


def imported_spans(event: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Return the spans of an event as `perfkit import` reads it."""
    path = folder / "event.json"
    path.write_text(json.dumps(transactions.whole(event)), encoding="utf-8")
    return imported(path).table("spans").to_dicts()


@pytest.mark.parametrize("by_import", [False, True], ids=["as rows", "imported"])
@pytest.mark.parametrize("detector", DETECTORS)
def test_our_rule_agrees(shared_data: Path, tmp_path: Path, detector: str, by_import: bool) -> None:
    rule_id, names = DETECTORS[detector]
    wrong = []
    for path in cases(shared_data, detector):
        case = transactions.load(path)
        event = case["event"]
        rule = tuned(RULES[rule_id], case["settings"], names)
        rows = imported_spans(event, tmp_path) if by_import else transactions.spans(event)
        (outcome,) = evaluate.run([rule], FixedTables({"spans": rows}))
        if bool(outcome.findings) != bool(case["expected"]):
            wrong.append(path.stem)
    assert wrong == [name for name in DIFFERENT if f"-{detector}-" in name]
