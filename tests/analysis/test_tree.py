from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given

from perfkit.analysis.filters import Filters
from perfkit.analysis.spans.tree import COLUMNS
from tests.analysis.build import S, analyse, by_id, traces

Row = dict[str, Any]


def place(tables: Any) -> dict[tuple[int, int], Row]:
    rows = tables.frame("tree").iter_rows(named=True)
    return {(row["trace_lo"], row["span_id"]): row for row in rows}


def slow_parents(spans: list[S]) -> dict[tuple[int, int], tuple[int, int] | None]:
    """Who is under whom, found by walking: no parent if it is missing, itself, or in a cycle."""
    known = {(span.trace, span.id): span for span in spans}
    parents: dict[tuple[int, int], tuple[int, int] | None] = {}
    for key, span in known.items():
        above = (span.trace, span.parent) if span.parent is not None else None
        parents[key] = above if above in known and above != key else None
    for key in known:  # in order, so that the first span of a cycle is cut off
        seen, at = [key], parents[key]
        while at is not None and at not in seen:
            seen.append(at)
            at = parents[at]
        if at == key:
            parents[key] = None
    return parents


@given(traces(damaged=True))
def test_every_span_is_in_its_place(spans: list[S]) -> None:
    tables = analyse(spans)
    tree = tables.frame("tree")
    rows = place(tables)
    assert len(rows) == len(spans)
    expected = slow_parents(spans)
    for key, row in rows.items():
        above = expected[key]
        assert row["parent_row"] == (None if above is None else rows[above]["row"])
        inside = {one for one in expected if key in path(expected, one)}
        numbers = sorted(rows[one]["row"] for one in inside)
        assert numbers == list(range(row["row"], row["row"] + row["subtree"]))
    for parent_row, siblings in tree.group_by("parent_row"):
        assert siblings["start_ns"].is_sorted(), parent_row


def path(parents: dict[tuple[int, int], Any], key: tuple[int, int]) -> list[tuple[int, int]]:
    keys = [key]
    while parents[keys[-1]] is not None:
        keys.append(parents[keys[-1]])
    return keys


@given(traces(damaged=True))
def test_requests_and_entries(spans: list[S]) -> None:
    tables = analyse(spans)
    rows = list(tables.frame("tree").iter_rows(named=True))
    kinds = {(span.trace, span.id): span for span in spans}
    missing = {
        key
        for key, span in kinds.items()
        if span.parent is not None and (span.trace, span.parent) not in kinds
    }

    def is_request(row: Row) -> bool:
        if row["duplicate"]:
            return False
        if row["kind"] in ("server", "consumer"):
            if row["parent_row"] is None:
                return True
            parent = rows[row["parent_row"]]
            within = all(row[name] == parent[name] for name in ("service", "instance", "pid"))
            return parent["kind"] in ("client", "producer") or not within
        key = (row["trace_lo"], row["span_id"])
        return row["parent_row"] is None and key not in missing

    anything = any(is_request(row) for row in rows)
    for row in rows:
        above, chain = row, [row]
        while above["parent_row"] is not None:
            above = rows[above["parent_row"]]
            chain.append(above)
        if not anything:
            assert row["request_row"] == row["entry_row"] == chain[-1]["row"]
            continue
        requests = [one for one in chain if is_request(one)]
        assert row["request_row"] == (requests[0]["row"] if requests else None)
        detached = [one for one in requests if one["detached"]]
        entry = detached[0] if detached else requests[-1] if requests else None
        assert row["entry_row"] == (entry["row"] if entry else None)


@given(traces(damaged=True))
def test_times(spans: list[S]) -> None:
    rows = place(analyse(spans))
    for span in spans:
        row = rows[span.trace, span.id]
        if span.end is None:
            of_trace = [one for one in spans if one.trace == span.trace]
            latest = max(max(one.start, one.end or 0) for one in of_trace)
            assert row["open"]
            assert row["end_ns"] - row["skew_ns"] == latest
        else:
            assert row["negative"] == (span.end < span.start)
            assert row["duration_ns"] == max(span.end - span.start, 0)
        assert row["end_ns"] - row["start_ns"] == row["duration_ns"]


def test_an_open_span_is_as_long_as_it_is_known_to_have_been_open() -> None:
    rows = place(
        analyse(
            [
                S(1, 100, None, attributes='{"perfkit.open_ns": 400}'),
                S(2, 110, 150, 1),
                S(1, 100, None, trace=2, attributes='{"perfkit.open_ns": 20}'),
                S(2, 110, 150, 1, trace=2),
                S(1, 100, None, trace=3, attributes='{"perfkit.open_ns": "x"}'),
                S(1, 100, None, trace=4, attributes='{"perfkit.open_ns": -4}'),
                S(1, 1 << 62, None, trace=5, attributes=f'{{"perfkit.open_ns": {(1 << 63) - 1}}}'),
                # What came with an end counts instead.
                S(1, 100, 700, trace=6),
                S(1, 100, None, trace=6, attributes='{"perfkit.open_ns": 400}'),
                S(2, 100, None, 1, trace=6, attributes='{"perfkit.open_ns": 90}'),
            ]
        )
    )
    lengths = {key: row["duration_ns"] for key, row in rows.items()}
    assert lengths.pop((5, 1)) >= 0
    assert lengths == {
        (1, 1): 400,
        (1, 2): 40,
        (2, 1): 50,
        (2, 2): 40,
        (3, 1): 0,
        (4, 1): 0,
        (6, 1): 600,
        (6, 2): 600,
    }


def test_no_spans_give_all_columns() -> None:
    assert analyse([]).frame("tree").schema == analyse([S(1, 0, 1)]).frame("tree").schema
    assert analyse([]).frame("tree").columns == list(COLUMNS)


def test_a_span_delivered_twice_is_kept_once_in_its_complete_form() -> None:
    tree = analyse([S(1, 0, 10), S(2, 1, None, 1), S(2, 1, 5, 1), S(2, 1, 5, 1)]).frame("tree")
    assert tree["span_id"].to_list() == [1, 2]
    assert tree["open"].to_list() == [False, False]
    assert tree["end_ns"].to_list() == [10, 5]


def test_a_zipkin_server_shares_the_id_of_its_client() -> None:
    tree = analyse(
        [
            S(1, 0, 100, kind="server"),
            S(2, 10, 90, 1, kind="client"),
            S(2, 20, 80, 1, kind="server", service="b", name="served"),
            S(3, 30, 40, 2, service="b", name="inside b"),
            S(4, 50, 60, 2, service="c", kind="server", name="below the server"),
        ]
    ).frame("tree")
    assert tree["name"].to_list() == ["s1", "s2", "served", "inside b", "below the server"]
    assert tree["parent_row"].to_list() == [None, 0, 1, 2, 2]


def test_ids_count_only_within_their_trace() -> None:
    rows = place(
        analyse([S(1, 0, 10), S(2, 1, 2, 1), S(1, 0, 10, trace=2), S(3, 1, 2, 1, trace=2)])
    )
    assert rows[1, 2]["parent_row"] == rows[1, 1]["row"]
    assert rows[2, 3]["parent_row"] == rows[2, 1]["row"]


def test_one_id_for_everything_is_no_disaster() -> None:
    spans = [S(7, at, at + 1, 7, name=f"n{at}") for at in range(2000)]
    tree = analyse(spans).frame("tree")
    assert tree.height == 2000
    assert tree["cut"].any()


def test_a_consumer_is_detached_from_its_producer() -> None:
    tables = analyse(
        [
            S(1, 0, 10, kind="server"),
            S(2, 2, 3, 1, kind="producer"),
            S(3, 50, 90, 2, kind="consumer"),
            S(4, 60, 70, 3),
        ]
    )
    rows = by_id(tables, "tree")
    assert rows[3]["detached"]
    assert rows[3]["parent_row"] == rows[2]["row"]
    assert rows[3]["entry_row"] == rows[4]["entry_row"] == rows[3]["row"]
    assert rows[2]["entry_row"] == rows[1]["row"]


def test_a_link_to_the_parent_detaches() -> None:
    links = {"trace_hi": [0], "trace_lo": [1], "span_id": [2]}
    links |= {"linked_trace_hi": [0], "linked_trace_lo": [1], "linked_span_id": [1]}
    rows = by_id(analyse([S(1, 0, 10), S(2, 2, 3, 1), S(3, 2, 3, 1)], span_links=links), "tree")
    assert rows[2]["detached"]
    assert not rows[3]["detached"]


def test_parts_of_a_request_that_never_arrived_are_no_requests() -> None:
    rows = by_id(
        analyse(
            [
                S(1, 0, 10, 99, kind="client", name="SELECT"),
                S(2, 0, 10, 98, kind="server", trace=2),
                S(3, 0, 10, 97, kind="unspecified", trace=3),
            ]
        ),
        "tree",
    )
    assert rows[1]["cut"]
    assert rows[1]["entry_row"] is None
    assert rows[2]["entry_row"] == rows[2]["row"]
    assert rows[3]["entry_row"] == rows[3]["row"]


def test_without_any_request_roots_stand_for_them() -> None:
    rows = by_id(analyse([S(1, 0, 10, 99), S(2, 2, 3, 1)]), "tree")
    assert rows[2]["entry_row"] == rows[1]["row"]


def test_category_and_component() -> None:
    rows = by_id(
        analyse(
            [
                S(1, 0, 100, kind="server"),
                S(2, 0, 9, 1, kind="client", peer="b:80"),
                S(3, 1, 8, 2, kind="server", service="b"),
                S(4, 10, 19, 1, kind="client", peer="b:80"),
                S(5, 20, 29, 1, kind="client", db_system="redis"),
                S(6, 30, 39, 1, kind="client", db_system="postgresql", peer="db:5432"),
                S(7, 40, 49, 1, tool="search"),
                S(8, 50, 59, 1, kind="producer", peer="queue"),
                S(9, 60, 69, 1),
                S(10, 70, 79, 1, kind="client"),
                S(11, 90, 99, 8, kind="consumer", service="worker", peer="queue"),
            ]
        ),
        "tree",
    )
    found = {number: (row["category"], row["component"]) for number, row in rows.items()}
    assert found == {
        1: ("server", "app"),
        2: ("client", "b"),
        3: ("server", "b"),
        4: ("client", "b"),  # the same address as a call whose server is known
        5: ("database", "redis"),
        6: ("database", "db:5432"),
        7: ("tool", "search"),
        8: ("messaging", "queue"),
        9: ("internal", "app"),
        10: ("client", "unknown"),
        11: ("server", "worker"),  # work on a message is done for others, and no call
    }


def test_times_beyond_reason_are_cut_and_do_not_overflow() -> None:
    big = 2**63 - 1
    spans = [
        S(1, 0, None, name="a"),
        S(2, 5, 7, 1),
        S(3, big, big, 1),
        S(4, -big, 0, 1, duration_ns=big),
    ]
    spans += [S(5, 10, 11, 1, duration_ns=big), S(6, 10, 11, 5, duration_ns=-big)]
    tables = analyse(spans)
    assert (tables.frame("tree")["duration_ns"] >= 0).all()
    for name in ("span_times", "critical_path", "components", "requests", "query_repeats"):
        frame = tables.frame(name)
        columns = [column for column in frame.columns if column.endswith("_ns")]
        assert all((frame[column].fill_null(0) >= 0).all() for column in columns), name


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["chain", "family"])
def test_a_trace_of_extreme_shape(shape: str) -> None:
    count = 100_000 if shape == "family" else 20_000
    spans = [S(1, 0, 10 * count, kind="server")]
    for number in range(2, count + 1):
        if shape == "chain":
            spans.append(S(number, number, 10 * count - number, number - 1))
        else:
            spans.append(S(number, 10 * number - 10, 10 * number - 5, 1))
    tables = analyse(spans)
    assert tables.frame("tree")["depth"].max() == (count - 1 if shape == "chain" else 1)
    pieces = tables.frame("critical_path")
    assert (pieces["end_ns"] - pieces["start_ns"]).sum() == 10 * count
    assert tables.frame("span_times")["self_ns"].sum() == 10 * count
    assert tables.frame("requests")["span_count"].to_list() == [count]


def entries(spans: list[S], **filters: Any) -> list[int]:
    tree = analyse(spans, Filters(**filters)).frame("tree")
    return sorted(tree.filter(tree["row"] == tree["entry_row"])["span_id"])


REQUESTS = [
    S(1, 0, 100, kind="server", endpoint="GET /a"),
    S(2, 10, 90, 1, kind="client"),
    S(3, 20, 80, 2, kind="server", service="b", endpoint="GET /b"),
    S(4, 30, 40, 3, tool="search"),
    S(5, 200, 250, trace=2, kind="server", endpoint="POST /a", status="error"),
    S(6, 300, 350, trace=3, kind="server", endpoint="POST /c"),
    S(7, 0, 1, 99, trace=4),
]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, [1, 5, 6]),
        ({"service": "b"}, [1]),
        ({"service": "nowhere"}, []),
        ({"endpoint": "/a"}, [1, 5]),
        ({"endpoint": "GET /a"}, [1]),
        ({"endpoint": "/b"}, [1]),
        ({"service": "app", "endpoint": "/b"}, []),
        ({"tool": "search"}, [1]),
        ({"since_ns": 200}, [5, 6]),
        ({"until_ns": 200}, [1]),
        ({"since_ns": 200, "until_ns": 300}, [5]),
        ({"min_duration_ns": 51}, [1]),
        ({"status": "error"}, [5]),
        ({"status": "ok"}, [1, 6]),
        ({"where": "span_count > 1 OR endpoint LIKE '%/c'"}, [1, 6]),
        ({"where": "tool = 'search'"}, [1]),
        ({"where": "tool IS NULL", "status": "ok"}, [6]),
    ],
)
def test_filters_choose_whole_entries(filters: dict[str, Any], expected: list[int]) -> None:
    assert entries(REQUESTS, **filters) == expected


@given(traces(damaged=True))
def test_a_filtered_tree_is_that_of_the_spans_that_are_left(spans: list[S]) -> None:
    whole, some = analyse(spans), analyse(spans, Filters(min_duration_ns=5))
    tree, kept = whole.frame("tree"), some.frame("tree")
    chosen = tree.filter(
        (tree["row"] == tree["entry_row"]).fill_null(False), tree["duration_ns"] >= 5
    )
    expected = tree.filter(tree["entry_row"].is_in(chosen["row"].implode()))
    assert kept["span_id"].to_list() == expected["span_id"].to_list()
    assert kept["row"].to_list() == list(range(kept.height))
    for column in ("parent_row", "request_row", "entry_row"):
        for old, new in zip(expected[column], kept[column], strict=True):
            if new is not None:
                assert kept["span_id"][new] == tree["span_id"][old]
            else:
                assert old is None or old not in expected["row"].to_list()
    parents = kept["parent_row"].to_list()
    for row, size in enumerate(kept["subtree"]):
        below = [one for one in range(kept.height) if row in up(parents, one)]
        assert below == list(range(row, row + size))


def up(parents: list[int | None], row: int) -> list[int]:
    rows = [row]
    while (above := parents[rows[-1]]) is not None:
        rows.append(above)
    return rows


def test_a_server_span_inside_its_own_service_is_a_layer_not_a_request() -> None:
    # As MCP does over HTTP: POST /mcp [server] > tools/call [server] > GET [client] > GET [server]
    spans = [
        S(1, 0, 100, None, kind="server", service="gateway"),
        S(2, 10, 80, 1, kind="server", service="gateway"),
        S(3, 20, 60, 2, kind="client", service="gateway"),
        S(4, 30, 40, 3, kind="server", service="gateway"),
    ]
    tree = analyse(spans).frame("tree")
    assert tree["request_row"].to_list() == [0, 0, 0, 3]
    assert tree["entry_row"].to_list() == [0, 0, 0, 0]


def test_equal_tools_of_entries_are_counted_as_one() -> None:
    """Polars 2.1 counts texts of more than 12 bytes that `Series.scatter` wrote as different."""
    spans = []
    for trace in range(1, 5):
        spans.append(S(1, 0, 9, trace=trace, kind="server"))
        spans.append(S(2, 1, 8, 1, trace=trace, tool="a tool with a long name"))
    tree = analyse(spans).frame("tree").filter(pl.col("row") % 2 == 0)
    counted = tree.group_by("service").agg(pl.col("entry_tool").n_unique())
    assert counted.rows() == [("app", 1)]
