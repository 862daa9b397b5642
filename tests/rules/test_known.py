"""What the guard found in the shipped rules is taken from a file: the same, and only for them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from perfkit.errors import RuleError
from perfkit.resources import data_dir
from perfkit.rules import known, load
from perfkit.rules.fields import retuned
from perfkit.rules.load import known_tables, load_rule, rule_files
from perfkit.rules.model import Rule
from perfkit.sql import guard
from perfkit.sql.checked import Query, Texts

SLOW = data_dir("rules") / "database" / "db.slow-query.yaml"


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return copies of the shipped rules: these are read anew by every test."""
    return Path(shutil.copytree(data_dir("rules"), tmp_path_factory.mktemp("rules") / "copies"))


def _loaded(folder: Path) -> list[Rule]:
    return [load_rule(path) for path in rule_files(folder)]


class Parsed(Exception):
    """The guard was asked."""


@pytest.fixture
def no_parser(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: object) -> None:
        raise Parsed

    guard._scalar.cache_clear()
    known._trees.cache_clear()
    monkeypatch.setattr(guard, "_parse", refuse)
    yield
    guard._scalar.cache_clear()


def _both(rule: Rule) -> list[tuple[str, str]]:
    """Return all SQL that a rule may run."""
    parts = [stage.part for query in rule.queries() for stage in query.stages]
    parts += [expression.part for expression in rule.expressions()]
    return [part.both_sql(rule.values) for part in parts]


def _facts(query: Query) -> list[object]:
    """Return what is known of a query beside its trees."""
    stages = [replace(stage, part=None) for stage in query.stages]
    return [query.text, query.params, query.ordered, query.tables, query.columns, stages]


def test_the_shipped_rules_are_loaded_and_run_without_the_parser(
    copies: Path, no_parser: None
) -> None:
    texts = [both for rule in _loaded(copies) for both in _both(rule)]
    assert len(texts) > 1000


@pytest.mark.slow
def test_what_is_known_is_what_the_guard_finds(copies: Path) -> None:
    with known.nothing():
        anew = _loaded(copies)
    for rule, fresh in zip(_loaded(copies), anew, strict=True):
        assert _both(rule) == _both(fresh), rule.id
        for one, other in zip(rule.queries(), fresh.queries(), strict=True):
            assert _facts(one) == _facts(other), rule.id
            assert [stage.select for stage in one.stages] == [
                stage.select for stage in other.stages
            ]
        for mine, read in zip(rule.expressions(), fresh.expressions(), strict=True):
            assert (mine.tree, mine.columns, mine.params) == (read.tree, read.columns, read.params)


def test_a_tuned_rule_runs_with_its_own_numbers(copies: Path) -> None:
    path = next(copies.rglob(SLOW.name))
    rule = load_rule(path)
    tuned = replace(rule, params={**rule.params, "slow": retuned(rule.params["slow"], "777 ms")})
    with known.nothing():
        fresh = load_rule(path)
    assert _both(tuned) == _both(replace(fresh, params=tuned.params)) != _both(rule)


@pytest.mark.parametrize(
    ("given", "fits"),
    [
        ({"a": 1}, True),
        ({"a": 1, "b": 2}, True),
        ({"a": 2}, False),
        ({"a": 1.0}, False),
        ({"a": True}, False),
        ({}, False),
    ],
)
def test_texts_are_those_of_equal_values(given: dict[str, int], fits: bool) -> None:
    assert Texts({"a": 1}, "", "").fit(given) is fits


def test_what_differs_is_read_anew(no_parser: None) -> None:
    text = load_rule(SLOW).query.text
    tables, params = known_tables(), load_rule(SLOW).params
    assert known.query(text, tables, params) is not None
    assert known.query(text + " ", tables, params) is None
    assert known.query(text, tables, ()) is None
    fewer = {**tables, "queries": ()}
    assert known.query(text, fewer, params) is None
    without = {name: columns for name, columns in tables.items() if name != "queries"}
    assert known.query(text, without, params) is None
    stage = known.query(text, tables, params)
    assert stage is not None
    for name in (one.name for one in stage.stages if one.name):
        assert known.query(text, {**tables, name: ("a",)}, params) is None


def test_an_expression_is_known_where_its_columns_are(no_parser: None) -> None:
    one = next(one for one in load_rule(SLOW).derive.values() if one.columns)
    assert known.expression(one.text, one.columns, one.params) is not None
    assert known.expression(one.text, (), one.params) is None
    assert known.expression(f"({one.text})", one.columns, one.params) is None


def test_a_column_that_is_no_more_is_named_at_its_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    query = load_rule(SLOW).query
    assert "duration_ns" in query.stages[0].needs["tree"]
    tables = dict(known_tables())
    tables["tree"] = tuple(name for name in tables["tree"] if name != "duration_ns")
    monkeypatch.setattr(load, "known_tables", lambda: tables)
    with pytest.raises(RuleError, match=r"54:\d+: unknown column .*duration_ns"):
        load_rule(Path(shutil.copy(SLOW, tmp_path)))


def test_a_rule_of_another_file_is_not_taken_for_read(tmp_path: Path) -> None:
    changed = tmp_path / SLOW.name
    changed.write_text(
        SLOW.read_text().replace("SELECT service,", "SELECT nothing_of_that_name, service,")
    )
    with pytest.raises(RuleError, match="nothing_of_that_name"):
        load_rule(changed)


def test_without_the_file_the_guard_reads_everything(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rule = load_rule(SLOW)
    assert known.query(rule.query.text, known_tables(), rule.params) is not None
    monkeypatch.setattr(known, "data_dir", lambda _: tmp_path)
    known._read.cache_clear()
    try:
        assert known.query(rule.query.text, known_tables(), rule.params) is None
        (tmp_path / known.FILE).write_text("{")
        known._read.cache_clear()
        assert known.query(rule.query.text, known_tables(), rule.params) is None
        assert load_rule(Path(shutil.copy(SLOW, tmp_path))).query.stages
    finally:
        monkeypatch.undo()
        known._read.cache_clear()
