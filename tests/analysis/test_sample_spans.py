from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.code import sample_spans
from perfkit.analysis.code.span_threads import join_reason
from perfkit.analysis.filters import Filters
from perfkit.analysis.session import Tables
from perfkit.stacks import Frame
from tests.analysis.sampled import FRAMES, Sample, Span, span, tables, tree_frame


def joined(spans: list[Span], samples: list[Sample]) -> Tables:
    return tables(samples, derived={"tree": tree_frame(spans)})


def sample(start: int, end: int | None = None, **more: Any) -> Sample:
    return Sample(FRAMES[:1], start, None if end is None else end - start, **more)


def answers(spans: list[Span], samples: list[Sample]) -> list[tuple[Any, ...]]:
    table = joined(spans, samples).frame("sample_spans")
    return table.select("sample_row", "row", "entry_row", "ambiguous", "duration_ns").rows()


def test_a_sample_belongs_to_the_innermost_span_on_its_thread() -> None:
    #        0    5    10   15   20
    # span 0 [--------------------)
    # span 1      [---------)
    # sample   [------------------)
    assert answers([span(0, 0, 20), span(1, 5, 15, 0)], [sample(2, 20)]) == [
        (0, 0, 0, False, 3),
        (0, 1, 0, False, 10),
        (0, 0, 0, False, 5),
    ]


def test_what_a_sample_does_outside_of_spans_is_kept_apart() -> None:
    assert answers([span(0, 5, 10)], [sample(0, 12), sample(20, 30)]) == [
        (0, None, None, False, 5),
        (0, 0, 0, False, 5),
        (0, None, None, False, 2),
        (1, None, None, False, 10),
    ]


def test_a_worker_without_work_is_in_no_request() -> None:
    # span 0        [---------------)
    # sample [worker------|work-----)
    frames = (Frame("_worker", "/usr/lib/python3.11/concurrent/futures/thread.py", 81),)
    rest = Sample(frames, 0, 10)
    assert answers([span(0, 5, 20)], [rest, sample(10, 20)]) == [
        (0, None, None, False, 5),
        (0, None, None, False, 5),
        (1, 0, 0, False, 10),
    ]
    # What it did while it ran is the request's, only its code was not seen.
    assert answers([span(0, 5, 20)], [replace(rest, state="running"), sample(10, 20)]) == [
        (0, None, None, False, 5),
        (0, 0, 0, False, 5),
        (1, 0, 0, False, 10),
    ]


def test_two_requests_on_an_event_loop_are_ambiguous_and_never_guessed() -> None:
    # span 0 [---------)
    # span 1      [---------)
    # sample [--------------)
    assert answers([span(0, 0, 10), span(1, 5, 15)], [sample(0, 15)]) == [
        (0, 0, 0, False, 5),
        (0, None, None, True, 5),
        (0, 1, 1, False, 5),
    ]


def test_calls_side_by_side_of_one_request_leave_the_entry_certain() -> None:
    spans = [span(0, 0, 10), span(1, 2, 8, 0), span(2, 2, 8, 0)]
    assert answers(spans, [sample(3, 6)]) == [(0, None, 0, False, 3)]


def test_a_child_on_another_thread_does_not_hide_its_parent() -> None:
    spans = [span(0, 0, 10), span(1, 2, 8, 0, thread_id=2), span(2, 3, 4, 1)]
    samples = [sample(3, 7), sample(3, 7, tid=2)]
    assert answers(spans, samples) == [
        (0, 2, 0, False, 1),
        (0, 0, 0, False, 3),
        (1, 1, 0, False, 4),
    ]


def test_a_duplicate_report_of_a_request_is_passed_over() -> None:
    spans = [span(0, 0, 10), span(1, 0, 10, 0, duplicate=True), span(2, 2, 6, 1)]
    assert answers(spans, [sample(0, 10)]) == [
        (0, 0, 0, False, 2),
        (0, 2, 0, False, 4),
        (0, 0, 0, False, 4),
    ]


def test_a_sample_without_a_duration_is_a_moment() -> None:
    assert answers([span(0, 5, 10)], [sample(5), sample(10)]) == [
        (0, 0, 0, False, None),
        (1, None, None, False, None),
    ]


def test_a_span_whose_entry_was_not_captured_still_keeps_its_thread_busy() -> None:
    lost = span(0, 0, 10, entry_row=None, request_row=None, trace_lo=7)
    assert answers([lost], [sample(0, 4)]) == [(0, 0, None, False, 4)]
    assert answers([lost, span(1, 2, 4)], [sample(0, 4)]) == [
        (0, 0, None, False, 2),
        (0, None, None, True, 2),
    ]


def test_spans_are_laid_beside_samples_on_their_own_hosts_clock() -> None:
    assert answers([span(0, 105, 110, skew_ns=100)], [sample(0, 12)]) == [
        (0, None, None, False, 5),
        (0, 0, 0, False, 5),
        (0, None, None, False, 2),
    ]


NOT_SAMPLED = "the threads that spans name were not sampled while the spans were open"


def reason(spans: list[Span], samples: list[Sample]) -> str:
    return join_reason(joined(spans, samples))


def test_a_span_that_names_no_thread_is_joined_where_its_process_has_only_one() -> None:
    unnamed = [span(0, 0, 10, thread_id=None)]
    one, two = [sample(0, 5)], [sample(0, 5), sample(0, 5, tid=2)]
    assert answers(unnamed, one) == [(0, 0, 0, False, 5)]
    assert reason(unnamed, one) == "by process, which had one thread"
    assert [answer[1] for answer in answers(unnamed, two)] == [None, None]
    assert reason(unnamed, two) == "spans do not say on which thread they ran"


def test_a_span_that_names_no_process_is_joined_where_its_thread_is_unmistakable() -> None:
    unnamed = [span(0, 0, 10, pid=None)]
    one, two = [sample(0, 5)], [sample(0, 5), sample(0, 5, pid=2)]
    assert answers(unnamed, one) == [(0, 0, 0, False, 5)]
    assert [answer[1] for answer in answers(unnamed, two)] == [None, None]
    assert reason(unnamed, two) == NOT_SAMPLED


def test_reasons() -> None:
    assert reason([span(0, 0, 10)], [sample(0, 5)]) == "by thread"
    assert reason([span(0, 0, 10, thread_id=77)], [sample(0, 5)]) == NOT_SAMPLED
    assert reason([], [sample(0, 5)]) == "no spans"
    assert reason([span(0, 0, 10)], [Sample(FRAMES[:1], count=3)]) == "no samples with times"


@st.composite
def span_lists(draw: st.DrawFn) -> list[Span]:
    spans: list[Span] = []
    for row in range(draw(st.integers(0, 9))):
        start = draw(st.integers(0, 25))
        parent = draw(st.sampled_from([None, *range(row)]))
        spans.append(
            span(
                row,
                start,
                start + draw(st.integers(-1, 15)),
                parent,
                thread_id=draw(st.sampled_from([1, 1, 2])),
                duplicate=draw(st.sampled_from([False, False, False, True])),
            )
        )
    return spans


sample_draws = st.lists(
    st.builds(
        lambda start, length, tid: sample(start, start + length, tid=tid),
        st.integers(-3, 35),
        st.integers(1, 20),
        st.sampled_from([1, 2, 3]),
    ),
    max_size=6,
)


def slow_answer(spans: list[Span], seen: Sample) -> Counter[tuple[Any, ...]]:
    """Look at every nanosecond of the sample."""
    assert seen.ts_ns is not None
    assert seen.duration_ns is not None
    times: Counter[tuple[Any, ...]] = Counter()
    for moment in range(seen.ts_ns, seen.ts_ns + seen.duration_ns):
        is_open = [
            each
            for each in spans
            if each["thread_id"] == seen.tid
            and not each["duplicate"]
            and each["start_ns"] <= moment < each["end_ns"]
        ]
        hidden = {nearest(spans, each) for each in is_open}
        working = [each for each in is_open if each["row"] not in hidden]
        entries = {each["entry_row"] for each in working}
        row = working[0]["row"] if len(working) == 1 else None
        times[row, entries.pop() if len(entries) == 1 else None, len(entries) > 1] += 1
    return times


def nearest(spans: list[Span], each: Span) -> int | None:
    above = each["parent_row"]
    while above is not None and (
        spans[above]["thread_id"] != each["thread_id"] or spans[above]["duplicate"]
    ):
        above = spans[above]["parent_row"]
    return above


@given(span_lists(), sample_draws)
def test_the_join_equals_a_look_at_every_nanosecond(
    spans: list[Span], samples: list[Sample]
) -> None:
    made = joined(spans, samples)
    table = made.frame("sample_spans")
    ordered = sorted(samples, key=lambda seen: seen.ts_ns or 0)
    assert table.columns == list(sample_spans.COLUMNS)
    for number, seen in enumerate(ordered):
        mine = table.filter(pl.col("sample_row") == number)
        found: Counter[tuple[Any, ...]] = Counter()
        for row in mine.iter_rows(named=True):
            found[row["row"], row["entry_row"], row["ambiguous"]] += row["duration_ns"]
        ends = mine["start_ns"] + mine["duration_ns"]
        assert mine["start_ns"].to_list() == [seen.ts_ns, *ends[:-1]]
        assert found == slow_answer(spans, seen)
    by_entry = made.frame("code_by_entry")
    assert by_entry.columns == list(sample_spans.CODE_COLUMNS)
    assert by_entry["duration_ns"].sum() == sum(seen.duration_ns or 0 for seen in samples)


def test_code_by_entry_sums_over_entries_of_one_kind() -> None:
    spans = [
        span(0, 0, 10, entry_endpoint="GET /a", entry_tool="t"),
        span(1, 20, 30, entry_endpoint="GET /a", entry_tool="t"),
    ]
    samples = [sample(0, 12, state="running"), sample(20, 24, state="idle")]
    table = joined(spans, samples).frame("code_by_entry")
    columns = ("entry_endpoint", "entry_tool", "entry", "ambiguous", "duration_ns", "running_ns")
    assert table.select(columns).rows() == [
        ("GET /a", "t", True, False, 14, 10),
        (None, None, False, False, 2, 2),
    ]


SERVED = {"kind": "server", "pid": 1, "thread_id": 1, "trace_hi": 0, "service": "shop"}


def stored(number: int, endpoint: str, start: int, end: int, **more: Any) -> dict[str, Any]:
    """Return a row of `spans`: a request of a trace of its own."""
    times = {"start_ns": start, "duration_ns": end - start}
    return SERVED | {"span_id": number, "trace_lo": number, "endpoint": endpoint} | times | more


def filtered(filters: Filters) -> Tables:
    spans = [stored(1, "GET /a", 0, 10), stored(2, "GET /b", 8, 20), stored(3, "GET /a", 20, 25)]
    samples = [
        Sample(FRAMES[:1], 0, 18, state="running"),
        Sample(FRAMES[2:3], 18, 12, state="running"),
    ]
    return tables(samples, spans=spans, filters=filters)


def test_a_filter_keeps_the_parts_of_samples_that_belong_to_what_passes() -> None:
    #          0       8 10           20   25  30
    # GET /a   [---------)            [----)
    # GET /b           [--------------)
    # samples  [main--------------)[handle----)
    made = filtered(Filters(endpoint="/a"))
    samples = made.frame("ordered_samples")
    assert samples.select("ts_ns", "duration_ns", "count").rows() == [(0, 8, 1), (20, 5, 1)]
    assert made.frame("code_tree").select("function", "total_ns", "count").rows() == [
        ("handle", 5, 1),
        ("main", 8, 1),
    ]
    rows = made.frame("sample_spans").select("sample_row", "row", "entry_row", "ambiguous").rows()
    assert rows == [(0, 0, 0, False), (1, 1, 1, False)]
    assert made.frame("threads")["running_ns"].to_list() == [13]


def test_a_filter_of_time_cuts_samples_but_not_what_was_open_then() -> None:
    made = filtered(Filters(since_ns=5))
    assert made.frame("ordered_samples")["ts_ns"].to_list() == [18]
    rows = made.frame("sample_spans").select("row", "entry_row", "duration_ns").rows()
    assert rows == [(0, 0, 2), (1, 1, 5), (None, None, 5)]
