from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis import statements
from perfkit.analysis.statements import normalise, normalise_all

CASES = [
    ("postgresql", "select a from t where b in (%s, %s)", "SELECT a FROM t WHERE b IN (?)"),
    ("postgresql", "select $1::uuid limit 5", "SELECT CAST(? AS UUID) LIMIT ?"),
    ("postgresql", "SELECT a FROM t WHERE b = -5 /* trace=1 */", "SELECT a FROM t WHERE b = ?"),
    ("postgresql", "SELECT '%s', 'it''s' FROM t", "SELECT ?, ? FROM t"),
    ("mysql", "INSERT INTO t (a) VALUES (1), (2), ('x')", "INSERT INTO t (a) VALUES (?)"),
    ("mysql", "SELECT `a` FROM `t1` WHERE `b` = 'x'", "SELECT `a` FROM `t1` WHERE `b` = ?"),
    ("sqlite", "SELECT a FROM t WHERE b = :name LIMIT ?", "SELECT a FROM t WHERE b = ? LIMIT ?"),
    ("mssql", "SELECT TOP 10 a FROM t WHERE b = @p1", "SELECT TOP (?) a FROM t WHERE b = ?"),
    ("sqlite", "SELECT a FROM (SELECT 5, 'x''y'", "SELECT a FROM (SELECT ?, ?"),
    ("weird", "do 123 things to x1", "do ? things to x1"),
    ("postgresql", "SELECT 1; SELECT 2", "SELECT ?; SELECT ?"),
    ("sqlite", "SAVEPOINT sa_1", "SAVEPOINT"),
    ("sqlite", "BEGIN (implicit)", "BEGIN"),
    ("redis", "GET user:1", "GET ?"),
    ("redis", "MULTI\nSET a b\nSET c d\nEXEC", "MULTI; SET ?; EXEC"),
    ("mongodb", '{"find": "users", "filter": {"id": 7}}', "find users"),
    ("mongodb", "find users 7", "find users"),
    ("elasticsearch", "GET /index/_doc/12345", "GET /index/_doc/{id}"),
    ("", "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("system", "text", "expected"), CASES)
def test_values_are_taken_out(system: str, text: str, expected: str) -> None:
    assert normalise(system, text) == expected


@pytest.mark.parametrize(("system", "text", "expected"), CASES)
def test_twice_is_once(system: str, text: str, expected: str) -> None:
    if system not in ("redis", "mongodb", "elasticsearch"):
        assert normalise(system, expected) == expected


@given(st.text(max_size=40), st.sampled_from(["postgresql", "mysql", "redis", "mongodb", "x", ""]))
def test_any_text_has_a_name(text: str, system: str) -> None:
    assert isinstance(normalise(system, text), str)


def test_nesting_without_end_is_no_crash() -> None:
    assert normalise("sqlite", "SELECT " + "(" * 5000 + "1" + ")" * 5000).startswith("SELECT")


def test_very_many_texts_are_brought_together_before_parsing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statements, "_MAX_PARSED", 3)
    texts = [f"SELECT a1 FROM t WHERE b = {number} AND c = 'x{number}'" for number in range(50)]
    others = [f"SELECT c{number} FROM t" for number in range(9)]
    frame = pl.DataFrame({"db_system": "sqlite", "db_statement": texts + others, "name": "x"})
    found = normalise_all(frame).to_list()
    assert found[:50] == ["SELECT a1 FROM t WHERE b = ? AND c = ?"] * 50
    assert found[50:] == others
