"""Integers of SQL are those of Python: they do not wrap."""

from __future__ import annotations

import math
from collections.abc import Mapping

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlglot import exp

from perfkit.rules.load import load_rules
from perfkit.sql import write
from perfkit.sql.execute import Limits, add_column, run_query
from perfkit.sql.guard import check_expression, check_query
from perfkit.sql.width import widen

INT64 = st.integers(-(2**63), 2**63 - 1) | st.integers(-1000, 1000)
COUNT = st.integers(0, 2**32 - 1)


def run(sql: str, frame: pl.DataFrame) -> pl.DataFrame:
    query = check_query(sql, {"t": frame.columns}, ())
    return run_query(query, {"t": frame.lazy()}, {}, Limits())


def same(found: object, expected: int) -> bool:
    """Tell whether a result is the integer, or where it needs not be exact, the float beside it."""
    if isinstance(found, int):
        return found == expected
    assert isinstance(found, float)
    return abs(expected) >= 2**53 and math.isclose(found, expected, rel_tol=1e-12)


_OPERATIONS = ("+", "-", "*")


@st.composite
def formulas(draw: st.DrawFn, depth: int = 2) -> str:
    if depth == 0 or draw(st.booleans()):
        return draw(st.sampled_from(("a", "b", "u", "7", "100000")))
    left, right = draw(formulas(depth=depth - 1)), draw(formulas(depth=depth - 1))
    made = f"({left} {draw(st.sampled_from(_OPERATIONS))} {right})"
    return draw(st.sampled_from((made, f"ABS({made})", f"(-{made})")))


@given(formulas(), INT64, INT64, COUNT)
def test_every_formula_is_that_of_python(formula: str, a: int, b: int, u: int) -> None:
    frame = pl.DataFrame({"a": [a], "b": [b], "u": pl.Series([u], dtype=pl.UInt32)})
    values = {"a": a, "b": b, "u": u, "ABS": abs}
    expected = eval(formula, {"__builtins__": {}}, values)
    # What is beyond 127 bits is rounded at each step: then by what is largest in it.
    largest = eval(
        formula.replace("-", "+"), {}, {k: abs(v) if k != "ABS" else v for k, v in values.items()}
    )
    tree = check_expression(formula, frame.columns, ())
    for found in (
        run(f"SELECT {formula} AS x FROM t", frame)["x"].item(),
        add_column(frame, "x", tree, {})["x"].item(),
    ):
        assert same(found, expected) or abs(found - expected) <= largest * 1e-13
        if largest < 2**53:
            assert isinstance(found, int)
            assert found == expected


@given(st.lists(INT64, min_size=1, max_size=20))
def test_sums_are_those_of_python(values: list[int]) -> None:
    frame = pl.DataFrame({"a": values}, schema={"a": pl.Int64})
    row = run("SELECT SUM(a) AS s, SUM(DISTINCT a) AS d FROM t", frame).row(0)
    for found, expected in zip(row, (sum(values), sum(set(values))), strict=True):
        fits = -(2**63) <= expected < 2**63
        assert found == expected if fits else found == float(expected)
        assert isinstance(found, int) == fits


@given(st.lists(COUNT, min_size=1, max_size=20))
def test_sums_of_counts_are_those_of_python(values: list[int]) -> None:
    frame = pl.DataFrame({"u": pl.Series(values, dtype=pl.UInt32)})
    found = run("SELECT SUM(u) AS s, SUM(u * u) AS q, MIN(u - 5) AS m FROM t", frame).row(0)
    assert found[0] == sum(values)
    assert same(found[1], sum(value * value for value in values))
    assert found[2] == min(values) - 5


def test_a_variance_by_hand_is_that_of_the_function() -> None:
    frame = pl.DataFrame({"d": [3_100_000_000, 9_000_000_000, 40_000_000_000]})
    by_hand = "SQRT((SUM(d * d) - SUM(d) * AVG(d)) / (COUNT(*) - 1))"
    found = run(f"SELECT {by_hand} AS h, STDDEV(d) AS f FROM t", frame).row(0)
    assert found[0] == pytest.approx(found[1], rel=1e-9)
    assert run("SELECT POW(MAX(d), 2) AS x FROM t", frame).item() == 1.6e21


def test_where_order_groups_windows_and_lists_compare_the_true_value() -> None:
    frame = pl.DataFrame({"g": [1, 1, 2], "a": [2**62, 2**62, 5]})
    assert run("SELECT a FROM t WHERE a + a > 100", frame)["a"].to_list() == [2**62, 2**62]
    assert run("SELECT a FROM t WHERE a + 1 IN (6, 7)", frame)["a"].to_list() == [5]
    grouped = "SELECT g, SUM(a) AS s FROM t GROUP BY g HAVING SUM(a) > 1 ORDER BY SUM(a) DESC"
    assert run(grouped, frame).rows() == [(1, 2.0**63), (2, 5.0)]
    window = run("SELECT SUM(a) OVER (PARTITION BY g) AS s FROM t", frame)["s"]
    assert window.to_list() == [2.0**63, 2.0**63, 5.0]
    assert run("SELECT a * 2 AS k, COUNT(*) AS n FROM t GROUP BY a * 2", frame).height == 2
    listed = run("SELECT g, ARRAY_AGG(a + 1) AS l FROM t GROUP BY g ORDER BY g", frame)
    assert listed.rows() == [(1, [2**62 + 1, 2**62 + 1]), (2, [6])]


def test_a_result_that_fits_keeps_its_type() -> None:
    frame = pl.DataFrame({"a": [3, None], "f": [0.5, 1.5], "b": [True, False]})
    plain = run("SELECT SUM(a) AS a, SUM(f) AS f, SUM(b) AS b, SUM(a * a) AS q FROM t", frame)
    assert plain.rows() == [(3, 2.0, 1, 9)]
    assert plain.dtypes == [pl.Int64, pl.Float64, plain["b"].dtype, pl.Int64]
    assert plain["b"].dtype.is_integer()
    assert run("SELECT SUM(a) AS s FROM t WHERE f > 9", frame)["s"].dtype == pl.Int64


@pytest.mark.slow
def test_shipped_rules_are_written_as_from_copies_of_every_step() -> None:
    """Once is copied for both texts, without places, and what computes nothing is not widened."""

    def slowly(tree: exp.Expr, values: Mapping[str, write.Value]) -> tuple[str, str]:
        def bind(node: exp.Expr) -> exp.Expr:
            if isinstance(node, exp.Placeholder):
                return write.literal(values[node.name])
            if isinstance(node, exp.Literal) and not node.is_string and "." in node.this:
                return write.literal(float(node.this))
            return node

        bound = tree.copy().transform(bind)
        plain = bound.copy().sql(dialect=write.Engine, comments=False)
        return plain, widen(bound.copy()).sql(dialect=write.Engine, comments=False)

    for rule in load_rules():
        selects = [stage.select for stage in rule.query.stages]
        for tree in (*selects, *(one.tree for one in rule.derive.values())):
            before = tree.sql()
            assert write.both_sql(tree, rule.values) == slowly(tree, rule.values), rule.id
            assert tree.sql() == before
