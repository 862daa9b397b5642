"""`perfkit rules`, as its user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from perfkit.cli.rules import command
from perfkit.errors import GateFailed, PerfkitError, UsageError
from perfkit.rules.load import load_rules
from tests.rules.rule_text import changed, write


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def test_list_names_every_rule() -> None:
    result = run("list")
    assert result.exit_code == 0
    assert "DATABASE" in result.output
    assert "db.n-plus-one" in result.output
    data = json.loads(run("list", "--json").output)
    assert {"id", "title", "category", "status", "requires", "params"} <= set(data[0])


def test_show_explains_one() -> None:
    result = run("show", "db.n-plus-one")
    assert result.exit_code == 0
    for part in (
        "NUMBERS",
        "min_time = 50 ms",
        "QUERY",
        "WHAT TO DO",
        "LEARN MORE",
        "selectinload",
    ):
        assert part in result.output


def test_an_unknown_rule_is_guessed() -> None:
    result = run("show", "db.n-plus-on")
    assert isinstance(result.exception, UsageError)
    assert result.exception.hint == "did you mean db.n-plus-one?"


def test_lint_names_what_is_wrong(tmp_path: Path) -> None:
    good = write(tmp_path)
    assert run("lint", str(good)).exit_code == 0
    bad = write(tmp_path / "bad", changed("mean * 2", "mena * 2"))
    result = run("lint", str(good), str(bad))
    assert isinstance(result.exception, PerfkitError)
    assert "1 of 2 rule files are wrong" in result.exception.message
    assert f"{bad}:15:10: unknown column mena (did you mean mean?)" in result.output


def test_test_runs_the_tests_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path)
    assert run("test", "test.slow", "--rules", str(tmp_path)).exit_code == 0
    write(tmp_path, changed("severity: high, says", "severity: low, says"))
    result = run("test", "test.slow", "--rules", str(tmp_path))
    assert isinstance(result.exception, GateFailed)
    assert "test.slow: slow" in result.output
    assert "expected severity low, got high" in result.output


def test_test_without_a_name_runs_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That those of the shipped rules hold is told by `tests/rules/test_shipped.py`."""
    ran: list[str] = []
    monkeypatch.setattr("perfkit.rules.fixed.check", lambda rule, one: ran.append(rule.id))
    write(tmp_path)
    result = run("test", "--rules", str(tmp_path))
    assert result.exit_code == 0
    assert set(ran) == {"test.slow", *(rule.id for rule in load_rules())}
    assert f"{len(ran)} tests passed" in result.stderr


@pytest.mark.parametrize("arguments", [("test", "nothing"), ("show", "nothing")])
def test_no_such_rule(arguments: tuple[str, ...]) -> None:
    assert isinstance(run(*arguments).exception, UsageError)


def test_a_new_rule_is_a_valid_one(tmp_path: Path) -> None:
    folder = tmp_path / "perf" / "rules"
    result = run("new", "team.slow-search", "-o", str(folder))
    assert result.exit_code == 0
    assert (folder / "team.slow-search.yaml").is_file()
    assert run("lint", str(folder)).exit_code == 0
    assert run("test", "--rules", str(folder), "team.slow-search").exit_code == 0
    again = run("new", "team.slow-search", "-o", str(folder))
    assert isinstance(again.exception, UsageError)
    assert "is there already" in again.exception.message


@pytest.mark.parametrize("name", ["slow", "Team.slow", "../x.y", "a.b/c", "a.b\n"])
def test_a_new_rule_needs_an_id(tmp_path: Path, name: str) -> None:
    result = run("new", name, "-o", str(tmp_path))
    assert isinstance(result.exception, UsageError)
    assert list(tmp_path.iterdir()) == []


def test_the_list_says_what_is_silenced_and_show_what_is_tuned() -> None:
    assert "(silenced)" in run("list", "--group", "database", "--silence", "db.slow-query").output
    result = run("show", "db.slow-query", "--tune", "db.slow-query.slow=200ms")
    assert "slow = 200 ms — tuned; else 500 ms" in result.output


def test_the_schema_is_written() -> None:
    assert json.loads(run("schema").output)["title"] == "A perfkit rule"
