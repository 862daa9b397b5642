"""A comparison says the same of captures in shards as of the same captures in one piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from perfkit.analysis.comparison import contrast, root_cause, words
from perfkit.analysis.comparison.compare import Comparison, compare
from perfkit.analysis.comparison.contrast import Contrast
from perfkit.analysis.session import Tables
from perfkit.analysis.sharded import Division, ShardedTables
from perfkit.engine import Here
from tests.analysis import shop
from tests.analysis.build import Memory, S, span_columns
from tests.analysis.test_sharded import QUICK, many, spans_of_many_traces

Make = Callable[[Tables, Tables], Contrast]


@pytest.fixture(scope="module")
def captures() -> list[Memory]:
    return [shop.capture(seed=1), shop.capture(seed=2, change=shop.slower("GET /stock", 20))]


@pytest.fixture(scope="module")
def sharded(captures: list[Memory]) -> Iterator[list[ShardedTables]]:
    opened = [ShardedTables(Division(capture, Here(), 3)) for capture in captures]
    yield opened
    for tables in opened:
        tables.close()


def _middle(tables: Tables) -> int:
    return int(np.median(tables.columns("requests", "start_ns")["start_ns"].to_numpy()))


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda one, other: contrast.of_tables([one], [other]), id="captures"),
        pytest.param(lambda one, other: contrast.of_moment(other, _middle(other)), id="moment"),
        pytest.param(lambda one, other: contrast.of_tail(other), id="tail"),
        pytest.param(
            lambda one, other: contrast.of_predicates(
                other, ("start_ns % 3000000000 = 0", "start_ns % 3000000000 != 0")
            ),
            id="predicates",
        ),
    ],
)
def test_shards_are_compared_as_whole_captures_are(
    captures: list[Memory], sharded: list[ShardedTables], make: Make
) -> None:
    whole = compare(make(*(Tables(capture) for capture in captures)))
    parts = compare(make(*sharded))
    assert_same(whole, parts)
    assert words.answer(whole) == words.answer(parts)


@pytest.mark.slow
@settings(max_examples=5, deadline=None, phases=QUICK)
@given(
    many,
    st.one_of(st.integers(1, 20), st.sampled_from(["duration_ns < {}", "status = 'error'"])),
)
def test_damaged_traces_are_compared_as_in_one_piece(lists: list[list[S]], cut: int | str) -> None:
    capture = Memory({"spans": span_columns(spans_of_many_traces(lists))})
    whole, parts = Tables(capture), ShardedTables(Division(capture, Here(), 3))
    entries = whole.frame("requests").filter("entry")
    text = f"start_ns < {cut}" if isinstance(cut, int) else cut.format(8)
    side = entries.select(holds=pl.sql_expr(text).fill_null(False))["holds"]
    assume(side.any() and not side.all())
    found = [
        compare(
            contrast.of_moment(tables, cut)
            if isinstance(cut, int)
            else contrast.of_predicates(tables, (text, f"NOT ({text})"))
        )
        for tables in (whole, parts)
    ]
    # Which of several that begin together is in the first half depends on their order.
    assert_same(*found, with_causes=bool(entries["start_ns"].is_unique().all()))
    parts.close()


def assert_same(whole: Comparison, parts: Comparison, *, with_causes: bool = True) -> None:
    """The order of `tree` differs, so sums are rounded differently and ties come otherwise."""
    keys = ["kind", "service", "name", "detail", "measure"]
    assert_frame_equal(whole.differences.sort(keys), parts.differences.sort(keys))
    if with_causes:
        assert_frame_equal(
            whole.causes.ranking.sort("component"), parts.causes.ranking.sort("component")
        )
        assert_frame_equal(whole.causes.evidence, parts.causes.evidence)
    for one, other in (
        (whole.request_paths, parts.request_paths),
        (whole.code_paths, parts.code_paths),
    ):
        assert_frame_equal(one.sort("path_id"), other.sort("path_id"))
    assert (whole.traits is None) == (parts.traits is None)


def test_causes_of_many_spans_are_looked_for_in_whole_requests_of_both_sides(
    captures: list[Memory],
) -> None:
    compared = contrast.of_tables(*([Tables(capture)] for capture in captures))
    spans = [int((part.run_of_row >= 0).sum()) for part in compared.parts]
    thin, shares = root_cause.thinned(compared, spans[0] // 4)
    assert shares == pytest.approx((0.25, 0.25 * spans[0] / spans[1]), rel=0.05)
    for part, of in zip(thin.parts, compared.parts, strict=True):
        kept = part.run_of_row >= 0
        assert 0.15 < kept.mean() / (of.run_of_row >= 0).mean() < 0.35
        assert (part.run_of_row[kept] == of.run_of_row[kept]).all()
        entry = part.tables.frame("tree")["entry_row"].to_numpy()
        in_entry = pl.DataFrame({"entry": entry, "kept": kept}).group_by("entry")
        assert in_entry.agg(pl.col("kept").n_unique())["kept"].max() == 1
    assert root_cause.thinned(compared, max(spans)) == (compared, (1.0, 1.0))


def test_figures_of_a_sample_stand_for_all_requests_and_the_answer_says_so(
    captures: list[Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = contrast.of_tables(*([Tables(capture)] for capture in captures))
    every = root_cause.rank(compared).ranking.row(0, named=True)
    monkeypatch.setattr(root_cause, "MOST_SPANS", len(compared.parts[0].run_of_row) // 2)
    found = compare(compared)
    first = found.causes.ranking.row(0, named=True)
    assert first["component"] == every["component"] == "stock"
    assert first["requests"] == pytest.approx(every["requests"], rel=0.25)
    assert first["excess_ns"] == pytest.approx(every["excess_ns"], rel=0.25)
    assert "of the requests.)" in " ".join(words.answer(found))
