from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.waits import pools
from tests.analysis.sampled import Sample, Span, span, tables, tree_frame
from tests.analysis.test_lock_waits import KINDS, row

SECOND = 10**9
MS = 1_000_000
NEW = ("db.client.connection.count", "db.client.connection.pool.name", "db.client.connection.state")
OLD = ("db.client.connections.usage", "pool.name", "state")


def reading(
    pool: str, state: str, second: int, value: float, names: tuple[str, str, str] = NEW
) -> dict[str, Any]:
    attributes = f'{{"{names[1]}": "{pool}", "{names[2]}": "{state}"}}'
    return metric(names[0], second, value, attributes)


def metric(name: str, second: int, value: float, attributes: str, **more: Any) -> dict[str, Any]:
    row = {"name": name, "ts_ns": second * SECOND, "value": value, "kind": "gauge"}
    return row | {"attributes": attributes, "service": "shop", "instance": "a"} | more


def limit(pool: str, value: float) -> dict[str, Any]:
    attributes = f'{{"db.client.connection.pool.name": "{pool}"}}'
    return metric("db.client.connection.max", 0, value, attributes)


def pool_rows(
    metrics: list[dict[str, Any]],
    samples: list[Sample] | None = None,
    spans: list[Span] | None = None,
) -> list[dict[str, Any]]:
    table = tables(samples or [], metrics=metrics, derived={"tree": tree_frame(spans or [])}).frame(
        "pools"
    )
    assert table.columns == list(pools.COLUMNS)
    return table.rows(named=True)


def test_nothing_is_known_of_no_pool() -> None:
    assert pool_rows([]) == []


readings = st.lists(
    st.tuples(
        st.sampled_from(["store", "inventory"]),
        st.sampled_from(["used", "idle"]),
        st.integers(0, 10),
        st.integers(0, 5),
    ),
    max_size=25,
    unique_by=lambda each: each[:3],
)


@pytest.mark.parametrize("names", [NEW, OLD])
@given(readings, st.sampled_from([None, 3]))
def test_use_equals_a_loop_over_readings(
    names: tuple[str, str, str], drawn: list[tuple[str, str, int, int]], size: int | None
) -> None:
    metrics = [reading(*each, names) for each in drawn]
    metrics += [limit("store", size)] if size else []
    found = {each["pool"]: each for each in pool_rows(metrics)}
    used: dict[str, list[int]] = defaultdict(list)
    for pool, state, _, value in drawn:
        if state == "used":
            used[pool].append(value)
    assert set(found) == set(used) | ({"store"} if size else set())
    for pool, values in used.items():
        row = found[pool]
        assert (row["max_used"], row["source"]) == (max(values), "metrics")
        assert row["mean_used"] == pytest.approx(sum(values) / len(values))
        if pool == "store" and size:
            assert row["max_connections"] == size
            full = sum(value >= size for value in values)
            assert row["saturated_ratio"] == pytest.approx(full / len(values))
        else:
            assert row["saturated_ratio"] is None
        assert row["wait_ns"] is None


def test_waiting_that_metrics_know() -> None:
    attributes = '{"db.client.connection.pool.name": "store"}'
    waits = {"unit": "ms", "kind": "histogram"}
    name = "db.client.connection.wait_time"
    metrics = [
        limit("store", 4),
        metric(name, 1, 100.0, attributes, count=10, **waits),
        metric(name, 2, 160.0, attributes, count=12, **waits),
        metric(name, 3, 200.0, attributes, count=20, **waits),
        metric("db.client.connection.pending_requests", 1, 2, attributes),
        metric("db.client.connection.pending_requests", 2, 5, attributes),
        metric("db.client.connection.timeouts", 1, 7, attributes, kind="counter"),
        metric("db.client.connection.timeouts", 2, 9, attributes, kind="counter"),
    ]
    checkout = KINDS["pool"][0]
    only = pool_rows(metrics, [row(checkout, 0, 30, state="idle")])
    assert len(only) == 1
    assert (only[0]["wait_ns"], only[0]["waits"]) == (100 * MS, 10)
    assert (only[0]["pending_max"], only[0]["timeouts"]) == (5, 2)


CHECKOUTS = [
    row(KINDS["pool"][0], 0, 30, state="idle"),
    row(KINDS["pool"][0], 10, 50, tid=2, state="idle"),
]


def test_waiting_in_stacks_is_put_down_to_the_only_pool_that_was_full() -> None:
    metrics = [
        *(limit("store", 8), reading("store", "used", 1, 5)),
        *(limit("inventory", 1), reading("inventory", "used", 1, 1)),
    ]
    inventory, store = pool_rows(metrics, CHECKOUTS)
    assert (inventory["pool"], inventory["source"]) == ("inventory", "metrics")
    assert (inventory["wait_ns"], inventory["waits"]) == (70 * MS, 2)
    assert (inventory["waits_threads"], inventory["waiters"]) == (2, ["stock"])
    assert (store["wait_ns"], store["waiters"]) == (None, None)


@pytest.mark.parametrize("full", [0, 8])
def test_waiting_in_stacks_stands_alone_when_no_pool_or_several_were_full(full: int) -> None:
    metrics = [
        *(limit("store", 8), reading("store", "used", 1, full)),
        *(limit("inventory", 8), reading("inventory", "used", 1, full)),
    ]
    rows = pool_rows(metrics, CHECKOUTS)
    assert [each["pool"] for each in rows] == ["sqlalchemy", "inventory", "store"]
    assert (rows[0]["source"], rows[0]["wait_ns"]) == ("samples", 70 * MS)
    assert rows[0]["max_connections"] is None


def connect(row: int, start_ms: int, end_ms: int, parent: int, **more: Any) -> Span:
    return span(row, start_ms * MS, end_ms * MS, parent, name="connect", db_system="sqlite", **more)


def test_spans_time_waits_better_than_stacks() -> None:
    spans = [
        *(span(0, 0, 40 * MS), connect(1, 0, 0, 0)),
        *(span(2, 0, 50 * MS), connect(3, 0, 40, 2)),
        *(span(4, 20 * MS, 60 * MS), connect(5, 20, 50, 4, adjusted_count=2.0)),
        *(span(6, 60 * MS, 100 * MS), connect(7, 60, 60, 6)),
        span(8, 60 * MS, 90 * MS, 6, name="SELECT", db_system="sqlite"),
    ]
    metrics = [limit("inventory", 1), reading("inventory", "used", 1, 1)]
    inventory = pool_rows(metrics, CHECKOUTS, spans)
    assert len(inventory) == 1
    assert (inventory[0]["wait_ns"], inventory[0]["waits"]) == (100 * MS, 3)
    assert (inventory[0]["waits_threads"], inventory[0]["waiters"]) == (2, ["stock"])
    alone = pool_rows([], CHECKOUTS, spans)
    assert [(each["pool"], each["source"]) for each in alone] == [("sqlite", "spans")]
    # No stack shows who waits there: the requests that did, as spans have them.
    assert alone[0]["waiters"] == ["GET /"]
    other = [reading("inventory", "used", 1, 1) | {"service": "bank"}, limit("inventory", 1)]
    other[1]["service"] = "bank"
    rows = pool_rows(other, [], spans)
    assert [(each["pool"], each["wait_ns"]) for each in rows] == [
        ("sqlite", 100 * MS),
        ("inventory", None),
    ]


moments = st.integers(1, 12).flatmap(lambda many: st.permutations(range(3 * many)))


@given(moments)
def test_who_opens_a_connection_does_not_wait_for_one(drawn: list[int]) -> None:
    requests = sorted(sorted(drawn[at : at + 3]) for at in range(0, len(drawn), 3))
    spans: list[Span] = []
    for asks, gets, ends in requests:
        row = len(spans)
        spans += [span(row, asks * MS, ends * MS), connect(row + 1, asks, gets, row)]
    waits = 0
    for asks, gets, ends in requests:
        others = [each for each in requests if each != [asks, gets, ends]]
        held = {each[1]: sum(one[1] <= each[1] < one[2] for one in requests) for each in requests}
        first = all(held[gets] > held[earlier] for _, earlier, _ in others if earlier < gets)
        alone = not any(one[0] < asks < one[2] for one in others)
        waits += not first and not alone
    found = pool_rows([], [], spans)
    assert sum(each["waits"] for each in found) == waits


def test_a_pool_under_its_present_and_former_name_is_one_pool() -> None:
    (pool,) = pool_rows(
        [limit("store", 2), reading("store", "used", 1, 1), reading("store", "used", 1, 1, OLD)]
    )
    assert pool["max_used"] == 1
    assert pool["saturated_ratio"] == 0
