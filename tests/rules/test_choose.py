"""Which rules run: own folders, groups, silenced, tuned and scoped rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfkit.errors import RuleError, UsageError
from perfkit.rules import evaluate
from perfkit.rules.choose import Choice, choose
from perfkit.rules.fixed import FixedTables
from perfkit.rules.load import load_rules
from perfkit.rules.model import BrokenRule, Rule
from tests.rules.rule_text import RULE, changed, write

METRICS = FixedTables({"metric_stats": [{"name": "a", "mean": 12e6}]})


def only(rules: list[Rule | BrokenRule], name: str) -> Rule:
    (rule,) = (rule for rule in rules if rule.id == name)
    assert isinstance(rule, Rule)
    return rule


def test_without_a_word_the_shipped_ones() -> None:
    assert [rule.id for rule in choose()] == [rule.id for rule in load_rules()]


def test_own_rules_come_beside_the_shipped_ones(tmp_path: Path) -> None:
    write(tmp_path)
    chosen = choose(Choice(folders=(tmp_path,)))
    assert len(chosen) == len(load_rules()) + 1
    assert only(chosen, "test.slow").path.parent == tmp_path


def test_a_rule_of_the_same_id_replaces_the_shipped_one(tmp_path: Path) -> None:
    write(tmp_path, changed("id: test.slow", "id: db.slow-query"), name="db.slow-query")
    chosen = choose(Choice(folders=(tmp_path,)))
    assert len(chosen) == len(load_rules())
    assert only(chosen, "db.slow-query").title == "A slow thing"


def test_the_later_folder_wins(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b", changed("A slow thing", "Another"))
    chosen = choose(Choice(folders=(tmp_path / "a", tmp_path / "b")))
    assert only(chosen, "test.slow").title == "Another"


def test_two_files_of_one_id_in_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    with pytest.raises(RuleError, match="is also in"):
        choose(Choice(folders=(tmp_path,)))
    with pytest.raises(RuleError, match="not a folder"):
        choose(Choice(folders=(tmp_path / "nowhere",)))


def test_a_broken_file_is_an_error_and_the_others_are_heard(tmp_path: Path) -> None:
    write(tmp_path, changed("mean * 2", "mena * 2"))
    write(tmp_path, changed("id: test.slow", "id: test.other"), name="test.other")
    outcomes = {
        outcome.rule.id: outcome
        for outcome in evaluate.run(choose(Choice(folders=(tmp_path,))), METRICS)
    }
    assert outcomes["test.slow"].state == "error"
    assert "test.slow.yaml:15:10: unknown column mena (did you mean mean?)" in (
        outcomes["test.slow"].reason
    )
    assert outcomes["test.other"].state == "found"


def test_groups(tmp_path: Path) -> None:
    chosen = choose(Choice(groups=("database", "pools")))
    assert {rule.category for rule in chosen if isinstance(rule, Rule)} == {"database", "pools"}
    with pytest.raises(UsageError) as caught:
        choose(Choice(groups=("databse",)))
    assert caught.value.hint == "did you mean database?"


def test_a_silenced_rule_is_named_but_does_not_run(tmp_path: Path) -> None:
    write(tmp_path)
    chosen = choose(Choice(folders=(tmp_path,), groups=("test",), silence=("test.slow",)))
    (outcome,) = evaluate.run(chosen, METRICS)
    assert (outcome.state, outcome.findings) == ("silenced", [])


@pytest.mark.parametrize(
    ("value", "base", "shown"),
    [
        ("20ms", 20_000_000, "20 ms"),
        ("20", 20_000_000, "20 ms"),
        ("0.5 s", 500_000_000, "0.5 s"),
        ("1e3us", 1_000_000, "1,000 us"),
        ("-1", -1_000_000, "-1 ms"),
    ],
)
def test_a_tuned_time(tmp_path: Path, value: str, base: int, shown: str) -> None:
    write(tmp_path)
    chosen = choose(Choice(folders=(tmp_path,), tune=(f"test.slow.limit={value}",)))
    param = only(chosen, "test.slow").params["limit"]
    assert (param.value, param.shown) == (base, shown)
    assert param.source == "tuned; else 5 ms (house)"


@pytest.mark.parametrize(
    ("unit", "value", "base"),
    [
        ("%", "5%", 0.05),
        ("%", "0.2 ratio", 0.2),
        ("MiB", "3", 3 << 20),
        ("MiB", "2 KiB", 2048),
        ("1/s", "30/min", 0.5),
        ("1/min", "30", 0.5),
        ("count", "7", 7),
        ("text", "GET *", "GET *"),
    ],
)
def test_a_tuned_value_of_every_kind(tmp_path: Path, unit: str, value: str, base: object) -> None:
    default = "x" if unit == "text" else "5"
    write(tmp_path, changed("{default: 5, unit: ms,", f"{{default: {default}, unit: '{unit}',"))
    chosen = choose(Choice(folders=(tmp_path,), tune=(f"test.slow.limit={value}",)))
    assert only(chosen, "test.slow").params["limit"].value == pytest.approx(base)


def test_a_tuned_rule_finds_more(tmp_path: Path) -> None:
    write(tmp_path)
    choice = Choice(folders=(tmp_path,), groups=("test",), tune=("test.slow.limit=13ms",))
    (outcome,) = evaluate.run(choose(choice), METRICS)
    assert outcome.state == "quiet"


@pytest.mark.parametrize(
    ("tuning", "message", "hint"),
    [
        ("test.slow.limit", "does not tune a rule", "db.slow-query.slow=200ms"),
        ("=5", "does not tune a rule", ""),
        ("test.slow.limit=", "does not tune a rule", ""),
        ("test.slo.limit=5", "unknown rule test.slo", "did you mean test.slow?"),
        ("test.slow.limt=5", "unknown parameter of test.slow limt", "did you mean limit?"),
        ("test.slow.limit=fast", "test.slow.limit: 'fast' is no value in ns", ""),
        ("test.slow.limit=5 KiB", "'5 KiB' is no value in ns", ""),
        ("test.slow.limit=nan", "'nan' is no value in ns", ""),
        ("test.slow.limit=1e999", "too large", ""),
    ],
)
def test_a_tuning_that_cannot_be(tmp_path: Path, tuning: str, message: str, hint: str) -> None:
    write(tmp_path)
    with pytest.raises(UsageError) as caught:
        choose(Choice(folders=(tmp_path,), tune=(tuning,)))
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


SCOPED = (
    RULE.replace("metric_stats: [mean]", "endpoints: [p95_ns]")
    .replace(
        "SELECT name, mean\n  FROM metric_stats",
        "SELECT endpoint, endpoint AS name, p95_ns AS mean\n  FROM endpoints",
    )
    .replace("WHERE mean >= :limit", "WHERE p95_ns >= :limit")
)


def endpoints_found(tmp_path: Path, *patterns: str) -> list[str]:
    write(tmp_path, SCOPED.replace("metric_stats: [{name: a, mean: 12000000}]", "{}"))
    names = ["GET /search", "GET /search/{id}", "POST /buy", "GET /a[b]"]
    tables = FixedTables({"endpoints": [{"endpoint": one, "p95_ns": 9e6} for one in names]})
    tune = tuple(f"test.slow.endpoints={pattern}" for pattern in patterns)
    (outcome,) = evaluate.run(
        choose(Choice(folders=(tmp_path,), groups=("test",), tune=tune)), tables
    )
    assert outcome.state in ("found", "quiet"), outcome.reason
    return sorted(finding.key["name"] for finding in outcome.findings)


def test_a_rule_scoped_to_endpoints(tmp_path: Path) -> None:
    assert len(endpoints_found(tmp_path)) == 4
    assert endpoints_found(tmp_path, "GET /search*") == ["GET /search", "GET /search/{id}"]
    assert endpoints_found(tmp_path, "/search", "POST *") == ["GET /search", "POST /buy"]
    assert endpoints_found(tmp_path, "/a[b]") == ["GET /a[b]"]
    assert endpoints_found(tmp_path, "/nothing") == []
