"""What a query says of parts is what it says of all rows at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from perfkit.sql.apart import apart
from perfkit.sql.execute import Limits, TooMuch, run_query
from perfkit.sql.guard import check_query
from perfkit.sql.in_parts import run_in_parts

PART_ROWS = 10
TREE = {"row": pl.Int64, "parent_row": pl.Int64, "name": pl.String, "ns": pl.Int64, "w": pl.Float64}
CALLS = {"row": pl.Int64, "loop_row": pl.Int64, "query": pl.String}
BESIDE = pl.DataFrame({"query": ["a", "b", "b"], "cost": [1, 2, 3]})
COLUMNS = {"tree": TREE.keys(), "calls": CALLS.keys(), "texts": BESIDE.columns}

BY_PART = {
    "rows": "SELECT row, ns FROM tree WHERE ns > 1",
    "joined": "SELECT t.row AS row, c.query AS q FROM tree AS t JOIN calls AS c ON c.row = t.row",
    "lacking": """SELECT t.row AS row, c.query AS q, x.cost AS cost FROM tree AS t
        LEFT JOIN calls AS c ON c.row = t.row LEFT JOIN texts AS x ON x.query = c.query""",
    "beside first": """SELECT x.cost AS cost, c.row AS row FROM texts AS x
        JOIN calls AS c ON c.query = x.query""",
    "semi": """SELECT t.row AS row FROM tree AS t SEMI JOIN calls AS c ON c.loop_row = t.row""",
    "anti": """SELECT t.row AS row FROM tree AS t ANTI JOIN calls AS c ON c.loop_row = t.row""",
    "by link": """SELECT parent_row, name, COUNT(*) AS n, SUM(ns) AS ns FROM tree
        GROUP BY parent_row, name HAVING SUM(ns) > 2""",
    "by link, then another": """WITH one AS (
          SELECT parent_row, MIN(row) AS first_row, COUNT(*) AS n FROM tree GROUP BY parent_row
        )
        SELECT o.parent_row AS parent_row, c.query AS q, o.n AS n FROM one AS o
        JOIN calls AS c ON c.row = o.first_row""",
    "window": """SELECT row, ROW_NUMBER() OVER (PARTITION BY parent_row ORDER BY ns, row) AS n
        FROM tree""",
    "sums": """SELECT name, COUNT(*) AS n, COUNT(ns) AS some, SUM(ns) AS ns, AVG(ns) AS mean,
          MIN(ns) AS least, MAX(ns) AS most, SUM(ns * w) / SUM(w) AS weighted,
          COUNT(DISTINCT parent_row) AS parents,
          COUNT(DISTINCT CASE WHEN ns > 2 THEN row END) AS long,
          (SELECT SUM(cost) FROM texts) AS cost
        FROM tree GROUP BY name HAVING COUNT(*) >= 1 AND AVG(ns) >= 0 ORDER BY n DESC, name""",
    "sums of joined": """WITH found AS (
          SELECT t.parent_row AS parent_row, c.query AS query, SUM(t.ns) AS ns FROM tree AS t
          JOIN calls AS c ON c.row = t.row GROUP BY t.parent_row, c.query
        )
        SELECT f.query AS query, SUM(f.ns) AS ns, COUNT(*) AS n FROM found AS f
        JOIN tree AS p ON p.row = f.parent_row GROUP BY f.query ORDER BY query LIMIT 3""",
    "sum of all": "SELECT COUNT(*) AS n, SUM(ns) AS ns, MAX(ns) AS most FROM tree WHERE ns > 3",
    "by an expression": """SELECT COALESCE(name, '') AS name, COUNT(*) AS n FROM tree
        GROUP BY COALESCE(name, '')""",
    "by what may lack": """SELECT c.row AS row, COUNT(*) AS n FROM tree AS t
        LEFT JOIN calls AS c ON c.row = t.row GROUP BY c.row""",
}
AT_ONCE = {
    "median": "SELECT name, MEDIAN(ns) AS m FROM tree GROUP BY name",
    "quantile": "SELECT QUANTILE_CONT(ns, 0.9) AS m FROM tree",
    "different names": "SELECT COUNT(DISTINCT name) AS n FROM tree",
    "joined by names": """SELECT t.row AS row FROM tree AS t JOIN calls AS c
        ON c.query = t.name""",
    "kept without a match": """SELECT x.cost AS cost, c.row AS row FROM texts AS x
        LEFT JOIN calls AS c ON c.query = x.query""",
    "window over names": """SELECT row, SUM(ns) OVER (PARTITION BY name) AS ns FROM tree""",
    "first rows": "SELECT row, ns FROM tree ORDER BY row LIMIT 2",
    "different": "SELECT DISTINCT name AS name FROM tree",
    "value of parts": """SELECT row, (SELECT MAX(ns) FROM tree) AS ns FROM tree""",
    "in parts": "SELECT query, cost FROM texts WHERE query IN (SELECT query FROM calls)",
}


def frames(draw: st.DrawFn) -> list[dict[str, pl.DataFrame]]:
    """Return tables in parts; rows of a part name only rows of its own."""
    names = st.sampled_from(["a", "b", "c", None])
    times = st.one_of(st.none(), st.integers(0, 5), st.just(1 << 62))
    parts = []
    for number in range(draw(st.integers(1, 3))):
        first = number * PART_ROWS
        rows = range(first, first + draw(st.integers(0, 4)))
        link = st.sampled_from([*rows, None]) if rows else st.none()
        tree = [(row, draw(link), draw(names), draw(times), 0.5) for row in rows]
        calls = [(row, draw(link), draw(names)) for row in rows if draw(st.booleans())]
        parts.append(
            {
                "tree": pl.DataFrame(tree, TREE, orient="row"),
                "calls": pl.DataFrame(calls, CALLS, orient="row"),
            }
        )
    return parts


def lazy(tables: Mapping[str, pl.DataFrame]) -> dict[str, pl.LazyFrame]:
    return {name: table.lazy() for name, table in tables.items()}


def whole(parts: list[dict[str, pl.DataFrame]]) -> dict[str, pl.LazyFrame]:
    joined = {name: pl.concat(part[name] for part in parts) for name in parts[0]}
    return lazy({**joined, "texts": BESIDE})


@pytest.mark.parametrize("sql", [*BY_PART.values(), *AT_ONCE.values()], ids=[*BY_PART, *AT_ONCE])
@given(data=st.data())
@settings(
    max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_parts_say_what_all_rows_say(sql: str, tmp_path: Path, data: st.DataObject) -> None:
    parts = data.draw(st.composite(frames)())
    query = check_query(sql, COLUMNS)
    expected = run_query(query, whole(parts), {}, Limits())
    folder = tmp_path / "query"
    got = run_in_parts(query, whole(parts), [lazy(one) for one in parts], {}, Limits(), folder)
    assert_frame_equal(expected, got, check_row_order=False, check_dtypes=False)
    assert not folder.exists()


def asked_by_part(sql: str) -> bool:
    query = check_query(sql, COLUMNS)
    links = {"tree": {"row", "parent_row"}, "calls": {"row", "loop_row"}}
    for stage in query.stages[:-1]:
        how = apart(stage, COLUMNS, links)
        assert how is not None
        assert how.together is None
        links[stage.name] = set(how.links)
    columns = {**COLUMNS, **{stage.name: stage.columns for stage in query.stages}}
    return apart(query.stages[-1], columns, links) is not None


@pytest.mark.parametrize("sql", BY_PART.values(), ids=BY_PART)
def test_what_can_be_asked_by_part_is(sql: str) -> None:
    assert asked_by_part(sql)


@pytest.mark.parametrize("sql", AT_ONCE.values(), ids=AT_ONCE)
def test_what_cannot_is_not(sql: str) -> None:
    assert not asked_by_part(sql)


def test_limits_are_those_of_a_part(tmp_path: Path) -> None:
    parts = [{"tree": pl.DataFrame({"row": range(one, one + 6)})} for one in (0, 10)]
    every = lazy({"tree": pl.concat(part["tree"] for part in parts)})
    sql = "WITH some AS (SELECT row FROM tree) SELECT COUNT(*) AS n FROM some"
    query = check_query(sql, {"tree": ["row"]})
    with pytest.raises(TooMuch):
        run_query(query, every, {}, Limits(result_rows=6))
    pieces = [lazy(part) for part in parts]
    found = run_in_parts(query, every, pieces, {}, Limits(result_rows=6), tmp_path / "query")
    assert found.item() == 12
    last = check_query("SELECT row FROM tree", {"tree": ["row"]})
    with pytest.raises(TooMuch):
        run_in_parts(last, every, pieces, {}, Limits(result_rows=6), tmp_path / "query")
