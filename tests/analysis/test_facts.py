from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis import facts
from perfkit.analysis.session import Tables
from perfkit.stacks import Frame
from tests.analysis.sampled import FRAMES, Sample, tables

SECOND = 10**9


def request(number: int, start: int, end: int, **more: Any) -> dict[str, Any]:
    """Return a row of `spans`: a request of a trace of its own."""
    row = {"span_id": number, "trace_hi": 0, "trace_lo": number, "kind": "server"}
    row |= {"service": "shop", "pid": 1, "thread_id": 1, "endpoint": "GET /"}
    return row | {"start_ns": start, "duration_ns": end - start} | more


def only(made: Tables) -> dict[str, Any]:
    frame = made.frame("facts")
    assert frame.columns == list(facts.COLUMNS)
    assert frame.height == 1
    return frame.row(0, named=True)


def test_facts_of_everything_at_once() -> None:
    made = tables(
        [
            Sample(FRAMES[:1], 5, 10, state="running", count=2),
            Sample(FRAMES[:1], 40, 20, state="idle", tid=2),
            Sample(FRAMES[:1], 12, 4, state=None, pid=3, tid=3),
        ],
        spans=[
            request(1, 10, 20, adjusted_count=3.0, status="error"),
            request(2, 30, 50, service="stock"),
            request(3, 35, 40, trace_lo=2, parent_id=2, service="bank", pid=9),
        ],
        metrics=[{"name": "m", "ts_ns": 2, "value": 1.0, "kind": "gauge"}],
        cores=4,
    )
    assert only(made) == {
        "start_ns": 2,
        "end_ns": 60,
        "duration_ns": 55,
        "spans": 3,
        "traces": 2,
        "requests": 5,
        "entries": 4,
        "errors": 3,
        "request_ns": 50,
        "most_at_once": 1,
        "samples": 4,
        "sampled_ns": 34,
        "running_ns": 10,
        "importing_ns": 0,
        "unseen_ns": None,
        "in_requests_ns": 5,
        "ambiguous_ns": 0,
        "samples_joined": "by thread",
        "threads": 3,
        "processes": 3,
        "metric_points": 1,
        "cores": 4,
        "services": ["bank", "shop", "stock"],
    }


def test_facts_of_nothing() -> None:
    found = only(tables(cores=0))
    assert (found["start_ns"], found["duration_ns"], found["cores"]) == (None, 0, None)
    assert (found["entries"], found["request_ns"], found["services"]) == (0, 0, [])
    assert (found["sampled_ns"], found["running_ns"]) == (None, None)
    assert found["samples_joined"] == "no samples with times"


def test_counts_without_times_have_no_sampled_time() -> None:
    found = only(tables([Sample(FRAMES[:1], count=7)]))
    assert (found["samples"], found["sampled_ns"], found["start_ns"]) == (7, None, None)


def test_imports_before_the_first_request_are_the_start_and_no_work() -> None:
    # requests            [---)
    # samples  [import----------|import----|main-----)
    imports = (
        FRAMES[0],
        Frame("_find_and_load", "<frozen importlib._bootstrap>", 1),
        Frame("<module>", "/app/model.py", 1),
    )
    samples = [Sample(imports, 0, 30, state="running"), Sample(imports, 30, 20, state="running")]
    samples += [Sample(FRAMES[:1], 50, 9, state="running"), Sample(imports, 5, 9, state="idle")]
    found = only(tables(samples, spans=[request(1, 10, 20)]))
    assert (found["running_ns"], found["importing_ns"]) == (29, 30)
    # Without requests nobody knows when the start was over.
    assert only(tables(samples))["importing_ns"] == 50


def test_files_of_different_times_do_not_make_a_long_capture() -> None:
    found = only(
        tables(
            [Sample(FRAMES[:1], 1000, 20)],
            spans=[request(1, 10, 40)],
            metrics=[
                {"name": "m", "ts_ns": 30, "value": 1.0, "kind": "gauge"},
                {"name": "m", "ts_ns": 50, "value": 1.0, "kind": "gauge"},
            ],
        )
    )
    assert (found["start_ns"], found["end_ns"], found["duration_ns"]) == (10, 1020, 60)


def test_cores_of_an_imported_capture_are_those_with_metrics() -> None:
    def core(number: int, instance: str) -> dict[str, Any]:
        attributes = f'{{"cpu.logical_number": {number}}}'
        row = {"name": "system.cpu.utilization", "ts_ns": 1, "value": 0.5, "kind": "gauge"}
        return row | {"attributes": attributes, "instance": instance}

    metrics = [core(0, "a"), core(1, "a"), core(1, "a"), core(0, "b")]
    assert only(tables(metrics=metrics, cores=0))["cores"] == 2


@given(
    st.lists(
        st.tuples(
            st.integers(0, 50),
            st.integers(0, 50),
            st.sampled_from([1.0, 2.0, 10.0]),
            st.sampled_from(["ok", "error", "unset"]),
        ),
        max_size=8,
    )
)
def test_sums_over_entries_equal_a_loop(drawn: list[tuple[int, int, float, str]]) -> None:
    spans = [
        request(n, start, start + length, adjusted_count=weight, status=status)
        for n, (start, length, weight, status) in enumerate(drawn, 1)
    ]
    found = only(tables(spans=spans))
    assert found["entries"] == sum(weight for _, _, weight, _ in drawn)
    assert found["errors"] == sum(weight for *_, weight, status in drawn if status == "error")
    assert found["request_ns"] == sum(length * weight for _, length, weight, _ in drawn)
    ends = [start + length for start, length, _, _ in drawn]
    begin = min((start for start, *_ in drawn), default=0)
    assert found["duration_ns"] == max(ends, default=0) - begin
