from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.filters import Filters
from perfkit.analysis.predicate import parse_predicate
from perfkit.analysis.spans.requests import COLUMNS
from perfkit.errors import UsageError
from tests.analysis.build import S, analyse

ALLOWED = [
    "duration_ns > 5",
    "duration_ns BETWEEN 5 AND 7 OR NOT entry",
    "endpoint LIKE '%/a' AND status = 'ok'",
    "endpoint ILIKE 'get%'",
    "tool IN ('a', 'b''c')",
    "tool IS NOT NULL AND lower(tool) = 'x'",
    "(db_ns * 2 > duration_ns)",
    "hidden_error",
    "abs(self_ns) + 1 >= -1",
    "coalesce(tool, 'none') <> 'none'",
    "span_count % 2 = 0",
    "CAST(duration_ns AS TEXT) = '5'",
    "true",
]


@pytest.mark.parametrize("text", ALLOWED)
def test_predicates_that_are_allowed_run(text: str) -> None:
    tables = analyse([S(1, 0, 10, kind="server", endpoint="GET /a")], Filters(where=text))
    assert tables.frame("tree").height in (0, 1)


REFUSED = [
    "",
    "1",
    "duration_ns >",
    "nothing > 5",
    "requests.duration_ns > 5",
    "self.duration_ns > 5",
    "span_id IN (SELECT span_id FROM self)",
    "EXISTS (SELECT 1)",
    "duration_ns > (SELECT 1)",
    "read_csv('x') IS NULL",
    "true; DROP TABLE x",
    "true UNION SELECT 1",
    "SELECT 1",
    "sum(duration_ns) > 5",
    "row_number() OVER () = 1",
    "duration_ns > ?",
    "duration_ns > $1",
    "CASE WHEN true THEN true END",
    "duration_ns > 5 -- and so on\n OR secret = 1",
    "(" * 3000 + "true" + ")" * 3000,
]


@pytest.mark.parametrize("text", REFUSED)
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_predicate(text, COLUMNS)
    assert "--where" in caught.value.message
    assert "\n" not in caught.value.message
    assert "\x1b" not in caught.value.message


@given(st.text(max_size=30))
def test_any_text_is_allowed_or_refused(text: str) -> None:
    try:
        predicate = parse_predicate(text, COLUMNS)
    except UsageError:
        return
    assert parse_predicate(predicate, COLUMNS) == predicate


def test_a_quoted_value_stays_a_value() -> None:
    predicate = parse_predicate("tool = 'x'' OR true --'", COLUMNS)
    frame = pl.DataFrame({"tool": ["x' OR true --", "y"]})
    assert frame.sql(f"SELECT * FROM self WHERE {predicate}").height == 1


@pytest.mark.parametrize("text", ["duration_ns LIKE 'x'", "duration_ns = 'x'", "duration_ns"])
def test_what_is_not_true_or_false_for_a_request_is_one_clear_line(text: str) -> None:
    tables = analyse([S(1, 0, 10)], Filters(where=text))
    with pytest.raises(UsageError, match="--where"):
        tables.frame("tree")
