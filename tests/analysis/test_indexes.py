"""Which columns an index could cover: equality, then a range, then the order; or why not."""

from __future__ import annotations

import pytest

from perfkit.analysis.database.indexes import propose
from tests.analysis.build import S, analyse

# fmt: off
SERVED = (
    ("SELECT gate, sum(g) FROM scans WHERE order_id = $1 GROUP BY gate", "scans (order_id)", None),
    ("SELECT * FROM a WHERE y > $2 AND x = $1 ORDER BY y DESC LIMIT 5", "a (x, y)", None),
    ("SELECT * FROM a WHERE x = $1 AND y > $2 ORDER BY z", "a (x, y)", None),
    ("SELECT * FROM a WHERE x = $1 ORDER BY y, z", "a (x, y, z)", None),
    ("SELECT * FROM a WHERE x = $1 ORDER BY y, z DESC", "a (x)", None),
    ("SELECT * FROM a WHERE x IS NULL AND y BETWEEN 1 AND 2 AND z < 3", "a (x, y)", None),
    ("SELECT * FROM o JOIN i ON i.order_id = o.id WHERE o.owner = $1", "o (owner)", "i (order_id)"),
    ("SELECT * FROM o JOIN i ON i.order_id = o.id WHERE o.id = $1", "i (order_id)", None),
    ("SELECT * FROM o, i WHERE i.order_id = o.id AND o.x = 1", "o (x)", "i (order_id)"),
    ('SELECT * FROM "A b" WHERE "x ""; DROP" = %s', '"A b" ("x ""; DROP")', None),
    ("SELECT * FROM s.a WHERE t::date = $1 AND k IN ($2, $3)", "s.a (k)", None),
    ("WITH t AS (SELECT * FROM b WHERE k = $1) SELECT * FROM t WHERE u = 2", "b (k)", None),
    ("SELECT * FROM a WHERE name LIKE 'x%'", "a (name)", None),
    ("SELECT * FROM a WHERE $1 < t", "a (t)", None),
    # As Django writes it.
    ('SELECT "a"."t" FROM "a" WHERE ("a"."y" > %s AND "a"."x" = %s)', '"a" ("x", "y")', None),
    ("SELECT * FROM a WHERE ((x = 1 AND (y = 2)) AND (z = 3 AND t < 4))", "a (x, y, z, t)", None),
    ("SELECT * FROM a JOIN b ON (a.b_id = b.id AND b.x = $1)", "b (x)", "a (b_id)"),
    ("SELECT * FROM Users U WHERE u.name = $1 AND NAME = $2", "users (name)", None),
    ("SELECT * FROM a WHERE x = $1 AND id > $2 ORDER BY id", "a (x, id)", None),
    ("SELECT * FROM a WHERE x IN ($1, $2) AND y = 3 ORDER BY z", "a (x, y)", None),
    # What is looked up for each row comes first.
    ("SELECT (SELECT sum(y) FROM c WHERE c.d_id = d.id) FROM d WHERE t = 1", "c (d_id)", "d (t)"),
    ("SELECT (SELECT max(y) FROM c WHERE d.id = d_id AND k = 1) FROM d", "c (d_id, k)", None),
    ("SELECT (SELECT 1 FROM c WHERE k = d.k), (SELECT 2 FROM c WHERE k = d.k) FROM d WHERE t = 1",
     "c (k)", "d (t)"),
    ("SELECT 1 FROM d WHERE 3 < (SELECT sum(y) FROM c WHERE c.k = d.k)", "c (k)", None),
    ("SELECT (SELECT name FROM u WHERE u.id = d.u_id) FROM d WHERE d.t = $1", "d (t)", None),
    ("SELECT * FROM d WHERE t = 1 AND EXISTS (SELECT 1 FROM c WHERE c.k = d.k)", "d (t)", None),
)
DOUBTED = (
    ("SELECT * FROM a WHERE lower(name) = $1", "result of an expression"),
    ("SELECT * FROM a WHERE x = 1 OR y = 2", "joined by OR"),
    ("SELECT * FROM a WHERE name LIKE '%x'", "begins with a wildcard"),
    ("SELECT * FROM a WHERE name LIKE $1", "is not known"),
    ("SELECT * FROM a WHERE name ILIKE 'x%'", "ILIKE"),
    ("SELECT * FROM a WHERE id = $1", "primary key"),
    ("SELECT * FROM a WHERE id = $1 AND x = $2", "primary key"),
    ("SELECT * FROM a JOIN b ON a.b_id = b.id", "no condition compares"),
    ("WITH w AS (SELECT 1) SELECT (SELECT 1 FROM b, w WHERE w.y = b.x) FROM d", "no condition"),
    ("SELECT * FROM a JOIN b ON a.b_id = b.id WHERE x = 1", "no condition compares"),
)
# fmt: on


@pytest.mark.parametrize(("text", "on", "also"), SERVED)
def test_an_index_is_proposed(text: str, on: str, also: str | None) -> None:
    assert propose("postgresql", text)[:3] == (on, also, None)


@pytest.mark.parametrize(("text", "doubt"), DOUBTED)
def test_it_says_why_none_is(text: str, doubt: str) -> None:
    found = propose("postgresql", text)
    assert (found.on, found.also) == (None, None)
    assert doubt in (found.doubt or "")


@pytest.mark.parametrize(
    ("system", "text"),
    [
        ("redis", "GET a"),
        ("postgresql", "SELECT pg_sleep(1)"),
        ("postgresql", "INSERT INTO a VALUES (1)"),
        ("mysql", "SELECT FROM (("),
        # sqlglot would take seconds.
        ("postgresql", f"SELECT a{'[1]' * 1_200} FROM t WHERE x = 1"),
    ],
)
def test_nothing_is_said_of_what_is_no_query(system: str, text: str) -> None:
    assert propose(system, text) == (None, None, None, False)


@pytest.mark.parametrize(
    ("text", "per_outer"),
    [
        ("SELECT (SELECT sum(y) FROM c WHERE c.d_id = d.id) FROM d WHERE t = 1", True),
        ("SELECT (SELECT max(y) FROM c WHERE d.id = d_id AND k = 1) FROM d", True),
        ("SELECT (SELECT name FROM u WHERE u.id = d.u_id) FROM d WHERE d.t = $1", False),
        ("SELECT * FROM d WHERE t = 1 AND EXISTS (SELECT 1 FROM c WHERE c.k = d.k)", False),
        ("SELECT * FROM o JOIN i ON i.order_id = o.id WHERE o.owner = $1", False),
    ],
)
def test_it_says_what_is_looked_up_for_each_row(text: str, per_outer: bool) -> None:
    assert propose("postgresql", text).per_outer is per_outer


def test_names_are_written_as_the_product_has_them() -> None:
    assert propose("mysql", "SELECT * FROM `a b` WHERE `c` = ?").on == "`a b` (`c`)"


def test_the_slowest_queries_have_it() -> None:
    asked = {"kind": "client", "db_system": "postgresql"}
    spans = [S(1, 0, 900, kind="server"), S(2, 1, 9, 1, db_statement="SELECT 1", **asked)]
    spans.append(S(3, 10, 90, 1, db_statement="SELECT a FROM b WHERE c = 5", **asked))
    found = analyse(spans).frame("queries")
    assert found["index_on"].to_list() == ["b (c)", None]
    assert found["index_per_outer"].to_list() == [False, False]
