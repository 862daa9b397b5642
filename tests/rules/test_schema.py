"""The JSON Schema of rule files agrees with what the loader takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from perfkit.resources import data_dir
from perfkit.rules import new
from perfkit.rules.load import rule_files
from perfkit.rules.schema import schema
from tests.rules.rule_text import RULE

SCHEMA = schema()
CHECKER = jsonschema.Draft202012Validator(SCHEMA)


def faults(text: str) -> list[str]:
    return [error.message for error in CHECKER.iter_errors(yaml.load(text, yaml.CSafeLoader))]


def test_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", rule_files(data_dir("rules")), ids=lambda path: path.stem)
def test_takes_every_shipped_rule(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8")) == []


def test_takes_what_a_new_rule_begins_with() -> None:
    assert faults(new.text("team.slow-search")) == []


@pytest.mark.parametrize(
    ("old", "new_text"),
    [
        ("status: stable", "status: finished"),
        ("id: test.slow", "id: Slow"),
        ("unit: ms", "unit: weeks"),
        ("effort: low", "effort: none"),
        ("is: high", "is: awful"),
        ("metric_stats: [mean]", "metric_statz: [mean]"),
        ("software: Redis", "software: Rediss"),
        ("https://example.org/", "http://example.org/"),
        ("why: It is slow.", "because: It is slow."),
        ("confidence: CASE", "confidenze: CASE"),
    ],
)
def test_refuses_what_the_loader_refuses(old: str, new_text: str) -> None:
    assert RULE.count(old) == 1
    assert faults(RULE.replace(old, new_text))


def test_asks_for_every_key_that_the_loader_asks_for() -> None:
    whole: dict[str, Any] = yaml.load(RULE, yaml.CSafeLoader)
    for key in SCHEMA["required"]:
        assert not CHECKER.is_valid({name: whole[name] for name in whole if name != key})
