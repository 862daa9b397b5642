"""The rules that perfkit ships: each carries its tests, and they hold."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest

from perfkit.resources import data_dir
from perfkit.rules.evaluate import run
from perfkit.rules.fixed import FixedTables, check
from perfkit.rules.load import load_rules
from perfkit.rules.model import Rule, RuleTest

RULES = load_rules(tests=True)
TESTS = [(rule, test) for rule in RULES for test in rule.tests]
MOVED = {
    "www.starlette.io": "starlette.dev",
    "www.uvicorn.org": "uvicorn.dev",
    "docs.gunicorn.org": "gunicorn.org",
    "jcristharif.com": "msgspec.dev",
    "docs.pydantic.dev": "pydantic.dev",
}


@pytest.mark.parametrize(
    ("rule", "test"), TESTS, ids=[f"{rule.id}: {test.name}" for rule, test in TESTS]
)
def test_the_tests_that_a_rule_carries_hold(rule: Rule, test: RuleTest) -> None:
    assert check(rule, test) is None


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_is_complete(rule: Rule) -> None:
    expectations = [test.expect for test in rule.tests]
    assert len(rule.tests) >= 3
    assert any(isinstance(one, tuple) for one in expectations), "a case in which it speaks"
    assert "quiet" in expectations, "a counter-example in which it must stay quiet"
    assert rule.references, "documentation that teaches the fix"
    assert rule.false_positives
    assert rule.fix.steps
    # Names are shown as they are: only in messages a brace is written twice.
    assert not [one.name for one in rule.fix.settings if "{{" in one.name]
    assert rule.requires
    assert all(len(param.source) > 5 for param in rule.params.values())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_links_lead_to_where_documentation_is_now(rule: Rule) -> None:
    for reference in rule.references:
        url = urlsplit(reference["url"])
        assert "." in (url.hostname or "")
        assert not url.query
        assert url.hostname not in MOVED, f"moved to {MOVED[str(url.hostname)]}"
        assert not url.path.startswith("/docs/specs/semconv/database/"), "moved to /semconv/db/"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_file_lies_where_its_category_says(rule: Rule) -> None:
    assert rule.path.parent.name == rule.category
    assert rule.path.parent.parent == data_dir("rules")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_texts_are_whole_sentences(rule: Rule) -> None:
    assert re.search(r"[.%]$|‹statement›$|‹names›$", rule.message.plain().strip()), "message"
    assert rule.why.plain().strip().endswith(".")
    assert rule.fix.summary.plain().strip().endswith(".")
    assert not rule.headline.plain().strip().endswith(".")


def test_nothing_in_an_empty_capture() -> None:
    outcomes = run(RULES, FixedTables({}))
    assert {outcome.state for outcome in outcomes} == {"not_applicable"}
    assert all(outcome.reason for outcome in outcomes)


def test_no_rule_breaks_on_one_span_one_sample_one_metric() -> None:
    tables = FixedTables(
        {
            "spans": [{"span_id": 1, "kind": "server", "name": "x", "start_ns": 1}],
            "samples": [{"ts_ns": 1, "duration_ns": 1, "stack_id": 1}],
            "stacks": [{"stack_id": 1, "frame_id": 1, "depth": 0}],
            "frames": [{"frame_id": 1, "function": "f", "file": "f.py", "module": "f"}],
            "metrics": [{"ts_ns": 1, "name": "process.memory.usage", "kind": "gauge", "value": 1}],
        }
    )
    broken = [
        f"{outcome.rule.id}: {outcome.reason}"
        for outcome in run(RULES, tables)
        if outcome.state == "error" or any(one.severity != "info" for one in outcome.findings)
    ]
    assert broken == []
