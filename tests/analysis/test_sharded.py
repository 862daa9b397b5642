"""Shard by shard every table says what it says of the capture in one piece."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from perfkit.analysis import DERIVED
from perfkit.analysis.filters import Filters
from perfkit.analysis.replay import mends
from perfkit.analysis.replay.edits import Edits, Queue, Spared, scaled
from perfkit.analysis.replay.what_if import Change, forecast, replay_all
from perfkit.analysis.session import Tables
from perfkit.analysis.sharded import Division, ShardedTables, open_tables
from perfkit.analysis.vector.intervals import Intervals
from perfkit.engine import Here
from perfkit.errors import UsageError
from perfkit.layout import bucket
from tests.analysis.build import Memory, S, span_columns, traces
from tests.analysis.replays import saved_ratio

SHARDS = 3
QUICK = (Phase.explicit, Phase.reuse, Phase.generate)
"""An example takes a while, however few its spans: shrinking tries hundreds."""
_OF_SPAN = ("trace_hi", "trace_lo", "span_id", "start_ns", "end_ns", "kind", "service", "name")
_TIES = {
    "queries": ["example"],
    "equal_calls": ["example", "repeated_calls", "repeat_ns", "overlapped_calls", "overlap_ns"],
    "tool_calls": ["repeated_calls", "repeat_ns"],
}
"""What is said of one of several that begin together, such as which repeats the other."""

_ROUNDED = ("p50_ns", "p90_ns", "p95_ns", "p99_ns", "mean_ns")
"""Half a nanosecond may be rounded either way, since sums of weights depend on their order."""


def spans_of_many_traces(lists: list[list[S]]) -> list[S]:
    """Give every list traces of its own, and some of the spans tools, peers and endpoints."""
    spans = []
    for number, one in enumerate(lists):
        for span in one:
            span.trace += 2 * number
            span.columns.setdefault("thread_id", span.id % 3)
            span.columns["pid"] = 1
            if span.columns["kind"] == "server":
                span.columns["endpoint"] = f"GET /{span.id % 2}"
            if span.columns["kind"] == "client":
                span.columns["peer"] = f"host:{span.id % 2}"
                span.columns["attributes"] = '{"url.full": "http://host/a?b=1"}'
                span.columns["http_method"] = "GET"
            if span.columns["kind"] == "internal" and span.id % 3 == 0:
                span.columns |= {"tool": "search", "tool_arguments": f'{{"q": {span.id % 2}}}'}
            spans.append(span)
    return spans


_METRICS = {
    "ts_ns": [0, 10, 20, 0, 10, 20],
    "name": ["process.cpu.utilization"] * 3 + ["process.memory.usage"] * 3,
    "value": [0.5, 0.7, 0.9, 100.0, 200.0, 300.0],
    "kind": ["gauge"] * 6,
    "service": ["app"] * 6,
    "instance": ["pid 1"] * 6,
}
_SAMPLES: dict[str, Any] = {
    "samples": {
        "ts_ns": [0, 5, 9, 14],
        "duration_ns": [5, 4, 5, 6],
        "count": [1, 1, 1, 1],
        "pid": [1, 1, 1, 1],
        "tid": [0, 1, 2, 1],
        "stack_id": [1, 2, 1, 2],
        "state": ["running", "idle", "running", None],
    },
    "stacks": {"stack_id": [1, 2], "parent_id": [None, 1], "frame_id": [1, 2], "depth": [0, 1]},
    "frames": {
        "frame_id": [1, 2],
        "function": ["main", "work"],
        "file": ["/srv/app.py", "/srv/app.py"],
        "line": [1, 2],
        "category": ["app", "app"],
    },
}


def _capture(lists: list[list[S]]) -> Memory:
    spans = span_columns(spans_of_many_traces(lists))
    return Memory({"spans": spans, "metrics": _METRICS, **_SAMPLES})


def _comparable(tables: Tables, name: str) -> pl.DataFrame:
    """Return a table whose references are to what spans and nodes are, in an order of its own."""
    frame = tables.frame(name)
    identity = _identity(tables)
    for column in frame.columns:
        if column in ("sample_row", "contention_row"):
            continue
        if column == "row" or column.endswith("_row"):
            frame = frame.with_columns(identity.gather(frame[column]).alias(column))
        elif column == "rows" and isinstance(frame.schema[column], pl.List):
            rows = [sorted(identity.gather(one)) for one in frame["rows"]]
            frame = frame.with_columns(pl.Series("rows", rows, dtype=pl.List(pl.String)))
    if name in ("span_tree", "span_tree_rows"):
        paths = _paths(tables.frame("span_tree"))
        for column in {"node_id", "parent_id"} & set(frame.columns):
            known = [None if node is None else paths[node] for node in frame[column]]
            frame = frame.with_columns(pl.Series(column, known, dtype=pl.String))
    frame = frame.with_columns(pl.col(set(_ROUNDED) & set(frame.columns)).cast(pl.Float64))
    frame = frame.drop(_TIES.get(name, []))
    if name in ("trends", "shifts", "contention", "contention_endpoints", "series"):
        return frame
    for column, dtype in frame.schema.items():
        if isinstance(dtype, pl.List) and column != "rows":
            frame = frame.with_columns(pl.col(column).list.sort())
    keys = [column for column, dtype in frame.schema.items() if not dtype.is_float()]
    return frame.sort([_sortable(key, frame.schema[key]) for key in keys], nulls_last=True)


def _identity(tables: Tables) -> pl.Series:
    """Return for each row of `tree` what tells its span from others."""
    tree = tables.frame("tree").select(_OF_SPAN).with_columns(pl.all().cast(pl.String))
    return tree.select(pl.concat_str(pl.all(), separator="|", ignore_nulls=True)).to_series()


def _sortable(column: str, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.List):
        return pl.col(column).list.eval(pl.element().cast(pl.String)).list.join(",")
    return pl.col(column)


def _paths(nodes: pl.DataFrame) -> dict[int, str]:
    paths: dict[int, str] = {}
    for node in nodes.iter_rows(named=True):
        above = "" if node["parent_id"] is None else paths[node["parent_id"]]
        paths[node["node_id"]] = f"{above}/{node['label']}|{node['service']}|{node['category']}"
    return paths


def assert_equal(whole: Tables, parts: Tables) -> None:
    for derived in DERIVED:
        one, other = (_comparable(tables, derived.name) for tables in (whole, parts))
        assert one.schema == other.schema, derived.name
        try:
            assert_frame_equal(one.drop(_ROUNDED, strict=False), other.drop(_ROUNDED, strict=False))
            rounded = [name for name in _ROUNDED if name in one.columns]
            assert_frame_equal(one.select(rounded), other.select(rounded), abs_tol=1.0)
        except AssertionError as error:
            raise AssertionError(f"{derived.name}: {error}\n{one}\n{other}") from error


# All tables of an example take thousands of small steps, in which the rows hardly count: so there
# are few examples of many traces, rather than many of few.
many = st.lists(traces(damaged=True, max_size=6), min_size=3, max_size=10)


@settings(max_examples=4, deadline=None, phases=QUICK)
@given(many)
def test_every_table_is_that_of_the_capture_in_one_piece(lists: list[list[S]]) -> None:
    capture = _capture(lists)
    parts = ShardedTables(Division(capture, Here(), SHARDS))
    # So few that components are worked on in several batches.
    parts.most_at_once = 4
    assert_equal(Tables(capture), parts)
    parts.close()


@pytest.mark.slow
@settings(max_examples=4, deadline=None, phases=QUICK)
@given(
    many,
    st.sampled_from(
        [
            Filters(endpoint="/1"),
            Filters(since_ns=5, until_ns=15),
            Filters(status="error"),
            Filters(where="duration_ns > 3"),
        ]
    ),
)
def test_filters_choose_the_same_requests(lists: list[list[S]], filters: Filters) -> None:
    capture = _capture(lists)
    parts = ShardedTables(Division(capture, Here(), SHARDS), filters)
    assert_equal(Tables(capture, filters), parts)
    parts.close()


@pytest.mark.slow
@settings(max_examples=6, deadline=None, phases=QUICK)
@given(many, st.data())
def test_replays_are_those_of_the_capture_in_one_piece(
    lists: list[list[S]], data: st.DataObject
) -> None:
    capture = _capture(lists)
    whole, parts = Tables(capture), ShardedTables(Division(capture, Here(), SHARDS))
    places = [
        {identity: row for row, identity in enumerate(_identity(tables).to_list())}
        for tables in (whole, parts)
    ]
    tree = whole.frame("tree")
    assume(len(places[0]) == tree.height > 0)
    chosen = data.draw(st.lists(st.integers(0, tree.height - 1), min_size=1, max_size=8))
    calls = tree[sorted(set(chosen))].drop_nulls("parent_row")
    factor, share = data.draw(st.sampled_from([0.0, 0.5])), data.draw(st.booleans())
    names = list(places[0])
    found = []
    for tables, place in zip((whole, parts), places, strict=True):
        rows, above = (
            np.array([place[names[row]] for row in column], dtype=np.int64)
            for column in (calls["row"], calls["parent_row"])
        )
        line = np.zeros(len(rows), dtype=np.int64)
        times = Intervals(np.array([0]), np.array([5]), np.array([15]))
        edits = [
            scaled(mends.below(tables, rows), factor),
            scaled(mends.with_drivers(tables, rows), factor),
            mends.between(tables, rows, factor),
            mends.side_by_side(tables, rows, typical=share),
            Edits(spared=(Spared(rows, line, times),)) + scaled(rows, factor),
            mends.places(tables, rows, None, 3, relative=share),
            Edits(queues=(Queue(rows, above, 1, 3, 0, share),)) if len(rows) else Edits(),
        ]
        replays = [
            one.with_columns(entry=_identity(tables).gather(one["entry_row"])).drop("entry_row")
            for one in replay_all(tables, edits)
        ]
        ratios = [saved_ratio(tables, one) for one in edits]
        marks = forecast(tables, Change(edits[0], edits[-1]), ["entry_endpoint"])
        found.append((replays, ratios, marks))
    for one, other in zip(found[0][0], found[1][0], strict=True):
        assert_frame_equal(one.sort("entry"), other.sort("entry"))
    assert found[0][1] == pytest.approx(found[1][1])
    assert_frame_equal(found[0][2], found[1][2], check_row_order=False)
    parts.close()


@pytest.mark.slow
def test_a_capture_without_any_request_has_its_roots_for_requests() -> None:
    spans = [S(n, n, n + 5, 99, trace=n, kind="internal") for n in range(1, 9)]
    capture = Memory({"spans": span_columns(spans)})
    parts = ShardedTables(Division(capture, Here(), SHARDS))
    assert parts.frame("requests").height == 8
    assert_equal(Tables(capture), parts)
    # As soon as one is known for a request, those whose parent is missing are none.
    capture = Memory({"spans": span_columns([*spans, S(1, 0, 5, trace=50, kind="server")])})
    parts = ShardedTables(Division(capture, Here(), SHARDS))
    assert parts.frame("requests").height == 1


def test_a_peer_that_is_two_services_in_two_shards_stays_as_recorded() -> None:
    spans = []
    for trace in range(1, 41):
        service = "stock" if trace <= 20 else "other"
        spans += [
            S(1, 0, 10, trace=trace, kind="client", peer="both:80"),
            S(2, 1, 9, 1, trace=trace, kind="server", service=service),
            S(3, 0, 10, trace=trace, kind="client", peer="one:80"),
            S(4, 1, 9, 3, trace=trace, kind="server", service="stock"),
        ]
    parts = ShardedTables(Division(Memory({"spans": span_columns(spans)}), Here(), SHARDS))
    called = parts["tree"].filter(pl.col("kind") == "client").select("peer", "component")
    assert set(called.collect().rows()) == {("both:80", "both:80"), ("one:80", "stock")}


def test_the_hash_of_a_trace_is_the_same_for_ever_and_divides_evenly() -> None:
    ids = {"trace_hi": [0, 0, -1, None], "trace_lo": [1, -5, 7, None]}
    schema = {"trace_hi": pl.Int64, "trace_lo": pl.Int64}
    assert pl.DataFrame(ids, schema).select(bucket(1000)).to_series().to_list() == [
        748,
        561,
        923,
        0,
    ]
    many = pl.DataFrame({"trace_hi": 0, "trace_lo": pl.int_range(80_000, eager=True)})
    sizes = many.group_by(bucket(8)).len()["len"]
    assert sizes.len() == 8
    assert sizes.min() > 0.8 * 10_000


def test_small_captures_are_analysed_in_one_piece_and_large_ones_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    capture = _capture([[S(1, 0, 9, kind="server")], [S(1, 0, 9, kind="server")]])
    assert not isinstance(open_tables(capture, Filters()), ShardedTables)
    assert isinstance(open_tables(capture, Filters(), "shards"), ShardedTables)
    monkeypatch.setattr("perfkit.analysis.sharded.WHOLE_SPANS", 1)
    assert isinstance(open_tables(capture, Filters()), ShardedTables)
    assert not isinstance(open_tables(capture, Filters(), "whole"), ShardedTables)


def test_requests_that_are_reported_twice_are_not_divided() -> None:
    spans = [
        S(n, 0, 9, trace=n, kind="server", endpoint="GET /", scope=f"scope {n}") for n in (1, 2)
    ]
    capture = Memory({"spans": span_columns(spans)})
    with pytest.raises(UsageError, match="two instrumentations"):
        open_tables(capture, Filters(), "shards")


@pytest.mark.slow
@settings(max_examples=3, deadline=None, phases=QUICK)
@given(many, st.booleans())
def test_scopes_that_serve_other_endpoints_are_divided(lists: list[list[S]], apart: bool) -> None:
    spans = spans_of_many_traces(lists)
    for number, span in enumerate(spans):
        if span.columns["kind"] == "server":
            # Either each scope has its own endpoint, or both have both.
            span.columns["scope"] = f"scope {(span.id if apart else number) % 2}"
    capture = Memory({"spans": span_columns(spans), "metrics": _METRICS, **_SAMPLES})
    served = {
        (span.columns["service"], span.columns["endpoint"]): set[str]()
        for span in spans
        if span.columns["kind"] == "server"
    }
    for span in spans:
        if span.columns["kind"] == "server":
            served[span.columns["service"], span.columns["endpoint"]].add(span.columns["scope"])
    if any(len(scopes) > 1 for scopes in served.values()):
        with pytest.raises(UsageError, match="two instrumentations"):
            open_tables(capture, Filters(), "shards")
        return
    parts = ShardedTables(Division(capture, Here(), SHARDS))
    assert_equal(Tables(capture), parts)
    parts.close()
    opened = open_tables(capture, Filters(), "shards")
    assert isinstance(opened, ShardedTables)
    opened.close()


def test_a_template_may_report_what_a_path_does() -> None:
    one, other = ({"kind": "server", "scope": f"scope {n}", "trace": n} for n in (1, 2))
    spans = [S(1, 0, 9, **one, endpoint="/a/{path}"), S(2, 0, 9, **other, endpoint="/a/b")]
    with pytest.raises(UsageError, match="two instrumentations"):
        open_tables(Memory({"spans": span_columns(spans)}), Filters(), "shards")
    spans = [S(1, 0, 9, **one, endpoint="/a/{path}"), S(2, 0, 9, **other, endpoint="/b")]
    tables = open_tables(Memory({"spans": span_columns(spans)}), Filters(), "shards")
    assert isinstance(tables, ShardedTables)
    tables.close()


def test_what_may_not_fit_into_memory_is_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = ShardedTables(Division(_capture([[S(1, 0, 9, kind="server")]]), Here(), SHARDS))
    said: list[str] = []
    parts.tell(lambda done, count: None, said.append)
    parts.columns("tree", "service", "row")
    assert not said
    monkeypatch.setattr("perfkit.analysis.sharded.free_bytes", lambda: 32)
    parts.columns("tree", "name", "entry_row")
    (line,) = said
    assert line.startswith("2 columns of the 1 rows of `tree` are needed at once")
    parts.asks_much()
    assert said[1].startswith("what rules ask of 1 spans takes about 1.0 GiB, with 0.0 GiB free.")
    parts.close()


def test_a_closed_session_leaves_no_files() -> None:
    parts = ShardedTables(Division(_capture([[S(1, 0, 9, kind="server")]]), Here(), SHARDS))
    assert parts.has_rows("tree")
    folder = parts._division.folder.path
    assert any(folder.rglob("*.parquet"))
    parts.close()
    assert not folder.exists()
