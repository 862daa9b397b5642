from __future__ import annotations

from collections import defaultdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.analysis.code import entry_modules
from perfkit.stacks import Frame
from tests.analysis.sampled import Sample, Span, span, tables, tree_frame

VIEW = Frame("search", "/app/views.py", 1)
LISTED = Frame("find", "/app/views.py", 9)
MATCH = Frame("search", "/usr/lib/python3.11/re/__init__.py", 1)
COMPILE = Frame("compile", "/usr/lib/python3.11/re/_compiler.py", 1)
LOADS = Frame("loads", "/usr/lib/python3.11/json/__init__.py", 1)
IMPORT = Frame("_find_and_load", "<frozen importlib._bootstrap>", 1)
READ = Frame("readinto", "/usr/lib/python3.11/socket.py", 1)
MODULES = {
    VIEW: "app.views",
    LISTED: "app.views",
    MATCH: "re",
    COMPILE: "re._compiler",
    LOADS: "json",
    IMPORT: "importlib._bootstrap",
    READ: "socket",
}

Told = dict[tuple[str, str], dict[str, Any]]


def found(spans: list[Span], samples: list[Sample]) -> Told:
    frame = tables(samples, derived={"tree": tree_frame(spans)}).frame("modules_by_entry")
    assert frame.columns == list(entry_modules.COLUMNS)
    return {(row["entry_endpoint"], row["module"]): row for row in frame.iter_rows(named=True)}


def of(endpoint: str, number: int, start: int, end: int) -> Span:
    return span(number, start, end, entry_endpoint=endpoint)


def test_the_share_of_a_module_is_that_of_the_requests_of_one_endpoint() -> None:
    # GET /a  [---------)        [----)
    # GET /b            [--------)
    # samples  [view|re-)[view---)[re-)[re: no request)
    spans = [of("GET /a", 0, 0, 10), of("GET /b", 1, 10, 20), of("GET /a", 2, 20, 25)]
    samples = [
        Sample((VIEW,), 1, 4, state="running"),
        Sample((VIEW, MATCH), 5, 5, state="running"),
        Sample((VIEW,), 11, 9, state="running"),
        Sample((VIEW, LISTED, MATCH, COMPILE), 21, 4),
        Sample((VIEW, MATCH), 25, 9, state="running"),
    ]
    told = found(spans, samples)
    row = told["GET /a", "re"]
    assert (row["duration_ns"], row["samples"], row["requests"]) == (9, 2, 2)
    assert (row["seen_ns"], row["seen_requests"]) == (13, 2)
    assert (row["entries"], row["request_ns"]) == (2, 15)
    assert (row["caller"], row["caller_file"], row["caller_module"]) == (
        *("search", "/app/views.py"),
        "app.views",
    )
    assert told["GET /a", "re._compiler"]["caller_module"] == "re"
    assert ("GET /b", "re") not in told


def test_what_waits_for_an_answer_is_no_work_of_its_module() -> None:
    waits = [Sample((VIEW, LOADS, READ), 0, 9, state="idle")]
    assert found([of("GET /a", 0, 0, 10)], waits) == {}
    # Of one that only waits for its turn nobody says what for: it is where it is.
    assert (
        found([of("GET /a", 0, 0, 10)], [Sample((VIEW, LOADS), 0, 9, state="idle")])[
            "GET /a", "json"
        ]["duration_ns"]
        == 9
    )


def test_an_import_is_done_once_and_left_out() -> None:
    told = found([of("GET /a", 0, 0, 10)], [Sample((VIEW, IMPORT, MATCH), 0, 9, state="running")])
    assert set(told) == {("GET /a", "app.views")}


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from([*MODULES]), min_size=1, max_size=6),
            st.integers(0, 40),
            st.integers(1, 9),
            st.sampled_from(["running", "idle", None]),
        ),
        max_size=8,
    )
)
@settings(max_examples=20)
def test_the_table_is_what_a_loop_over_samples_adds_up(
    drawn: list[tuple[list[Frame], int, int, str | None]],
) -> None:
    spans = [
        of("GET /ab"[: 5 + number % 2], number, number * 10, number * 10 + 8) for number in range(4)
    ]
    samples = [Sample(tuple(frames), *when, state=state) for frames, *when, state in drawn]
    told = found(spans, samples)
    time: dict[tuple[str, str], int] = defaultdict(int)
    requests = defaultdict(set)
    seen: dict[str, int] = defaultdict(int)
    for one in samples:
        assert one.ts_ns is not None
        assert one.duration_ns is not None
        names = [MODULES[frame] for frame in one.frames]
        until = names.index(MODULES[IMPORT]) if MODULES[IMPORT] in names else len(names)
        waits = one.frames[-1] == READ and one.state != "running"
        for each in spans:
            start = max(one.ts_ns, each["start_ns"])
            length = min(one.ts_ns + one.duration_ns, each["end_ns"]) - start
            seen[each["entry_endpoint"]] += max(0, length)
            for module in set(names[:until]) if length > 0 and not waits else ():
                key = (each["entry_endpoint"], module)
                time[key] += length
                requests[key].add(each["row"])
    expected = {key for key in time if time[key] >= 0.05 * seen[key[0]]}
    assert {key: row["duration_ns"] for key, row in told.items()} == {
        key: time[key] for key in expected
    }
    for key, row in told.items():
        assert (row["requests"], row["seen_ns"]) == (len(requests[key]), seen[key[0]])


def test_more_modules_than_a_word_has_bits() -> None:
    frames = [Frame("f", f"/app/m{number}.py", 1) for number in range(70)]
    samples = [Sample(tuple(frames[:40]), 0, 5), Sample(tuple(frames[30:]), 20, 5)]
    told = found([of("GET /a", 0, 0, 9), of("GET /a", 1, 20, 29)], samples)
    assert len(told) == 70
    assert [told["GET /a", f"app.m{number}"]["requests"] for number in (0, 29, 30, 39, 40, 69)] == [
        *(1, 1, 2),
        *(2, 1, 1),
    ]
