"""The columns of `tree` that can be had alone are those of `tree`."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from polars.testing import assert_frame_equal

from perfkit.analysis.filters import Filters
from perfkit.analysis.spans import backbone
from perfkit.analysis.spans.recorded import Recorded
from tests.analysis.build import S, analyse, traces


@given(traces(damaged=True))
def test_equals_the_tree(spans: list[S]) -> None:
    repeated = [*spans, *spans[:3]]
    for filters in (Filters(), Filters(service="other")):
        alone = analyse(repeated, filters).columns("tree", *backbone.COLUMNS)
        assert_frame_equal(alone, analyse(repeated, filters).frame("tree").select(alone.columns))


def test_a_client_span_calls_a_server_that_it_waits_for() -> None:
    spans = [
        S(1, 0, 90, kind="client"),
        S(2, 10, 80, 1, kind="server"),
        S(3, 20, 30, 2, kind="client"),
        S(4, 20, 30, 3),
        S(5, 40, 50, 4, kind="server"),
    ]
    tree = analyse(spans).frame("tree")
    assert tree.filter("calls_server")["span_id"].to_list() == [1]


def test_columns_of_the_spans_that_are_kept() -> None:
    frame = pl.DataFrame({"span_id": [5, 6, 7], "kind": ["server", None, "client"]})
    spans = Recorded(frame.lazy())
    assert spans.is_kind("server").tolist() == [True, False, False]
    spans.keep(pl.Series([1, 2]).to_numpy())
    spans.keep(pl.Series([1]).to_numpy())
    assert spans["span_id"].to_list() == [7]
    assert spans.is_kind("client").tolist() == [True]
    assert spans.kept is not None
    assert spans.kept.tolist() == [2]
