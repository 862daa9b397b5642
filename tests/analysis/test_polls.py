from __future__ import annotations

from itertools import pairwise
from statistics import median
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.analysis.spans.polls import MIN_CALLS
from tests.analysis.build import S, analyse
from tests.analysis.sampled import tables

MS = 1_000_000


def asking(*pauses_ms: int, call_ms: int = 1, **columns: Any) -> list[S]:
    """Return a request that asks one thing with pauses in between."""
    asked = {"db_system": "redis", "db_statement": "GET ?"} | columns
    now, spans = 1, []
    for place, pause in enumerate((*pauses_ms, 0)):
        spans.append(S(2 + place, now * MS, (now + call_ms) * MS, 1, kind="client", **asked))
        now += call_ms + pause
    return [S(1, 0, (now + 1) * MS, kind="server", endpoint="GET /label"), *spans]


def test_even_pauses_are_polling() -> None:
    (found,) = analyse(asking(5, 5, 6, 5)).frame("polls").to_dicts()
    assert (found["calls"], found["entry_endpoint"]) == (5, "GET /label")
    assert (found["call_ns"], found["pause_ns"]) == (5 * MS, 21 * MS)
    assert found["usual_pause_ns"] == 5 * MS
    assert found["running_ns"] is None


def test_calls_over_http_are_too() -> None:
    more = {"http_method": "GET", "attributes": '{"url.full": "http://jobs/7"}'}
    spans = asking(5, 5, 5, 5, db_system=None, db_statement=None, **more)
    (found,) = analyse(spans).frame("polls").to_dicts()
    assert (found["kind"], found["target"]) == ("http", "GET http://jobs/{id}")


def test_uneven_pauses_and_quick_ones_and_what_happens_in_between_are_none() -> None:
    assert analyse(asking(5, 1, 9, 2, 7)).frame("polls").is_empty()
    assert analyse(asking(1, 1, 1, 1, call_ms=3)).frame("polls").is_empty()
    between = S(90, 9 * MS, 10 * MS, 1, name="work")
    assert analyse([*asking(5, 5, 5, 5), between]).frame("polls").is_empty()


def test_who_computes_in_the_pauses_does_not_sleep() -> None:
    spans = [span.row() for span in asking(5, 5, 5, 5)]

    def found(computing_ns: int) -> list[int]:
        seen = {"entry_row": [0], "sample_row": [0], "duration_ns": [computing_ns]}
        sampled = {
            "sample_spans": pl.DataFrame(seen),
            "ordered_samples": pl.DataFrame({"state": ["running"]}),
        }
        return tables(spans=spans, derived=sampled).frame("polls")["running_ns"].to_list()

    assert found(6 * MS) == [6 * MS]
    assert found(7 * MS) == []


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.sampled_from(["GET ?", "GET ?", "TTL ?", None]), st.integers(0, 6)),
        max_size=20,
    )
)
def test_it_equals_the_slow_way(drawn: list[tuple[str | None, int]]) -> None:
    now, spans = 1, []
    for place, (statement, pause) in enumerate(drawn):
        what = {"db_system": "redis", "db_statement": statement, "kind": "client"}
        spans.append(S(2 + place, now * MS, (now + 1) * MS, 1, **(what if statement else {})))
        now += 1 + pause
    runs: list[list[S]] = []
    for one in spans:
        statement = one.columns.get("db_statement")
        if not runs or statement != runs[-1][-1].columns.get("db_statement") or statement is None:
            runs.append([])
        runs[-1].append(one)
    expected = []
    for run in runs:
        pauses = sorted(after.start - (one.end or 0) for one, after in pairwise(run))
        if len(run) < MIN_CALLS or median(pauses) < MS or sum(pauses) < len(run) * MS:
            continue
        if pauses[int(0.1 * (len(pauses) - 1))] >= 0.7 * median(pauses):
            expected.append((len(run), sum(pauses), median(pauses)))
    found = analyse([S(1, 0, (now + 1) * MS, kind="server"), *spans]).frame("polls")
    assert found.select("calls", "pause_ns", "usual_pause_ns").rows() == expected
