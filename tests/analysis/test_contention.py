from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.session import Tables
from perfkit.analysis.waits import contention
from perfkit.analysis.waits.contended_code import contended_gil
from tests.analysis.build import S, analyse

SECOND = 10**9
EPOCH = 1_700_000_000 * SECOND
Row = dict[str, Any]


def requests(*, every_s: float = 0.1, slow: tuple[int, int] = (0, 0), pid: int = 7) -> list[S]:
    """Return 59 s of requests of 20 ms; those that begin in `slow` take 120 ms."""
    spans = []
    for number in range(round(59 / every_s)):
        at = number * every_s
        length = 120 if slow[0] <= at < slow[1] else 20
        start = EPOCH + round(at * SECOND)
        spans.append(
            S(number + 1, start, start + length * 10**6, trace=number, kind="server", pid=pid,
              service="shop", endpoint="GET /a")
        )  # fmt: skip
    return spans


def metrics(*series: tuple[str, str, str, str | None, list[float]], instance: str = "pid 7") -> Row:
    """Return readings, one a second, of (name, unit, kind, attributes, values)."""
    columns: Row = {name: [] for name in ("ts_ns", "name", "unit", "kind", "attributes", "value")}
    for name, unit, kind, attributes, values in series:
        count = len(values)
        columns["ts_ns"] += [EPOCH + at * SECOND for at in range(count)]
        columns["name"] += [name] * count
        columns["unit"] += [unit] * count
        columns["kind"] += [kind] * count
        columns["attributes"] += [attributes] * count
        columns["value"] += values
    columns["instance"] = [instance] * len(columns["ts_ns"])
    return columns


def only(tables: Tables) -> Row:
    (row,) = tables.frame("contention").to_dicts()
    return row


def pool(name: str, state: str | None = None) -> str:
    values = {"db.client.connection.pool.name": name}
    if state:
        values["db.client.connection.state"] = state
    return json.dumps(values, sort_keys=True)


def test_waiting_for_a_connection_by_its_metrics() -> None:
    pending = [3.0 if 20 <= at < 30 else 0.0 for at in range(60)]
    used = [2.0 if 15 <= at < 35 else 1.0 for at in range(60)]
    tables = analyse(
        requests(slow=(19, 29)),
        metrics=metrics(
            ("db.client.connection.pending_requests", "{request}", "gauge", pool("main"), pending),
            ("db.client.connection.count", "{connection}", "gauge", pool("main", "used"), used),
            ("db.client.connection.max", "{connection}", "gauge", pool("main"), [2.0] * 60),
        ),
    )
    row = only(tables)
    assert (row["kind"], row["resource"], row["evidence"]) == ("pool", "main", "metrics")
    # A reading stands for the second before it.
    assert row["start_ns"] == EPOCH + 19 * SECOND
    assert row["end_ns"] == EPOCH + 29 * SECOND
    assert row["duration_ns"] == row["contended_ns"] == 10 * SECOND
    assert (row["times"], row["mean_level"], row["peak_level"]) == (10, 3.0, 3.0)
    assert row["wait_ns"] == 30 * SECOND
    assert row["threshold"] == 2
    assert row["pid"] == 7
    assert row["worst_endpoint"] == "GET /a"
    assert (row["requests"], row["began"]) == (100, 100)
    assert row["extra_ns"] == 100 * 100 * 10**6
    (endpoint,) = tables.frame("contention_endpoints").to_dicts()
    assert (endpoint["mean_ns"], endpoint["normal_ns"]) == (120 * 10**6, 20 * 10**6)


def test_a_full_pool_is_no_contention_where_nobody_waits() -> None:
    used = [2.0] * 60
    full = (
        ("db.client.connection.count", "{connection}", "gauge", pool("main", "used"), used),
        ("db.client.connection.max", "{connection}", "gauge", pool("main"), used),
    )
    nobody = (
        "db.client.connection.pending_requests",
        "{request}",
        "gauge",
        pool("main"),
        [0.0] * 60,
    )
    assert analyse([], metrics=metrics(*full, nobody)).frame("contention").is_empty()
    unknown = only(analyse([], metrics=metrics(*full)))
    assert unknown["confidence"] == 0.5
    assert unknown["wait_ns"] is None


def test_pauses_of_a_second_and_more_part_two_rows() -> None:
    pending = [1.0 if at in (10, 11, 13, 14, 40) else 0.0 for at in range(60)]
    tables = analyse(
        [],
        metrics=metrics(
            ("db.client.connection.pending_requests", "{request}", "gauge", pool("main"), pending)
        ),
    )
    rows = tables.frame("contention").sort("start_ns").to_dicts()
    spans = [((row["start_ns"] - EPOCH) // SECOND, row["duration_ns"] // SECOND) for row in rows]
    assert spans == [(9, 5), (39, 1)]
    assert rows[0]["contended_ns"] == 4 * SECOND


@pytest.mark.parametrize(
    ("kind", "resource", "level", "wait_s", "series"),
    [
        ("run queue", "processor", 0.5, 29.5,
         ("process.linux.run_queue.time", "s", "counter", None, [at * 0.5 for at in range(60)])),
        ("run queue", "processor", 3.0, None,
         ("system.linux.tasks.running", "{thread}", "gauge", None, [12.0] * 60)),
        ("cpu throttling", "quota", 0.3, 17.7,
         ("container.cpu.throttled.time", "s", "counter", None, [at * 0.3 for at in range(60)])),
        ("cpu steal", "processor", 0.2, None, ("system.cpu.steal", "1", "gauge", None, [0.2] * 60)),
        ("io pressure", "io", 0.4, None,
         ("system.linux.psi", "1", "gauge", '{"kind": "some", "resource": "io"}', [0.4] * 60)),
        ("memory pressure", "memory", 0.5, None,
         ("system.linux.psi.time", "s", "counter", '{"kind": "some", "resource": "memory"}',
          [at * 0.5 for at in range(60)])),
        ("accept queue", "port 8000", 4.0, 240.0,
         ("process.linux.listen.backlog", "{connection}", "gauge",
          '{"network.local.port": 8000}', [4.0] * 60)),
        ("disk", "sda", 0.95, None,
         ("system.linux.disk.utilization", "1", "gauge", '{"system.device": "sda"}', [0.95] * 60)),
    ],
)  # fmt: skip
def test_waiting_for_the_machine(
    kind: str, resource: str, level: float, wait_s: float | None, series: Any
) -> None:
    row = only(analyse(requests(), metrics=metrics(series)))
    assert (row["kind"], row["resource"]) == (kind, resource)
    assert row["mean_level"] == pytest.approx(level)
    assert row["wait_ns"] == (None if wait_s is None else pytest.approx(wait_s * SECOND))
    assert row["contended_ns"] == pytest.approx(59 * SECOND, abs=SECOND)
    assert row["requests"] == 590
    # There is no time without it to compare with.
    assert row["extra_ns"] is None


def test_quiet_machines_have_no_contention() -> None:
    calm = metrics(
        ("process.linux.run_queue.time", "s", "counter", None, [at * 0.05 for at in range(60)]),
        ("system.linux.tasks.running", "{thread}", "gauge", None, [3.0] * 60),
        ("system.cpu.steal", "1", "gauge", None, [0.01] * 60),
        ("system.linux.psi", "1", "gauge", '{"kind": "some", "resource": "cpu"}', [0.05] * 60),
        ("system.linux.psi", "1", "gauge", '{"kind": "full", "resource": "io"}', [0.9] * 60),
        ("system.linux.disk.utilization", "1", "gauge", '{"system.device": "sda"}', [0.5] * 60),
    )
    assert analyse(requests(), metrics=calm).frame("contention").is_empty()


def test_pressure_is_taken_from_the_time_where_both_are_recorded() -> None:
    both = metrics(
        ("system.linux.psi", "1", "gauge", '{"kind": "some", "resource": "io"}', [0.4] * 60),
        ("system.linux.psi.time", "s", "counter", '{"kind": "some", "resource": "io"}',
         [at * 0.5 for at in range(60)]),
    )  # fmt: skip
    assert only(analyse([], metrics=both))["mean_level"] == pytest.approx(0.5)


def test_spans_that_take_a_connection() -> None:
    spans = [S(1, EPOCH, EPOCH + SECOND, kind="server", service="shop", endpoint="GET /a", pid=7)]
    for number, (start, end) in enumerate(((0, 300), (100, 400), (600, 650)), 2):
        spans.append(
            S(number, EPOCH + start * 10**6, EPOCH + end * 10**6, 1, name="connect", service="shop",
              db_system="postgresql", kind="client", pid=7, adjusted_count=2.0)
        )  # fmt: skip
    # Others hold both connections until the first is taken.
    for number in (8, 10):
        held = {"service": "shop", "pid": 7, "trace": number}
        spans.append(S(number, EPOCH - 9, EPOCH + 300 * 10**6, kind="server", **held))
        spans.append(S(number + 1, EPOCH - 9, EPOCH - 8, number, name="connect",
                       db_system="postgresql", kind="client", **held))  # fmt: skip
    row = only(analyse(spans))
    assert (row["kind"], row["resource"], row["evidence"]) == ("pool", "postgresql", "spans")
    assert (row["times"], row["peak_level"]) == (3, 2.0)
    assert row["contended_ns"] == 450 * 10**6
    assert row["wait_ns"] == 2 * 650 * 10**6
    assert (row["service"], row["pid"], row["requests"]) == ("shop", 7, 3)


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 40), st.integers(1, 9)), max_size=12
    )
)
def test_merging_equals_a_loop(pieces: list[tuple[str, int, int]]) -> None:
    near = contention._NEAR_NS
    rows = [
        {"kind": "lock", "resource": name, "start_ns": at * near // 2,
         "end_ns": (at + length) * near // 2, "wait_ns": float(length), "unit": "threads waiting",
         "evidence": "samples", "confidence": 0.9}
        for name, at, length in pieces
    ]  # fmt: skip
    frame = pl.DataFrame(rows, schema=contention.SCHEMA)
    expected = []
    for name in ("a", "b"):
        mine = sorted((r["start_ns"], r["end_ns"]) for r in rows if r["resource"] == name)
        groups: list[list[tuple[int, int]]] = []
        for start, end in mine:
            if groups and start - max(last for _, last in groups[-1]) <= near:
                groups[-1].append((start, end))
            else:
                groups.append([(start, end)])
        for group in groups:
            moments = {half for start, end in group for half in range(start, end, near // 2)}
            expected.append(
                {
                    "resource": name,
                    "start_ns": group[0][0],
                    "end_ns": max(end for _, end in group),
                    "times": len(group),
                    "contended_ns": len(moments) * (near // 2),
                    "peak_level": float(
                        max(sum(s <= half < e for s, e in group) for half in moments)
                    ),
                    "wait_ns": sum((e - s) / (near // 2) for s, e in group),
                }
            )
    found = contention._merged(frame).to_dicts()
    found.sort(key=lambda row: (row["resource"], row["start_ns"]))
    assert [{name: row[name] for name in expected[0]} for row in found] == (
        expected if expected else []
    )


def test_nothing_gives_all_columns() -> None:
    for derived in (contention.DERIVED, contention.ENDPOINTS):
        assert analyse([]).frame(derived.name).columns == list(derived.columns)


def gil_samples(holders: dict[int, list[float]]) -> pl.DataFrame:
    """Return samples of 100 ms in which each thread holds the lock for shares of each second."""
    rows = [
        {"pid": 7, "tid": tid, "ts_ns": EPOCH + second * SECOND + tenth * SECOND // 10,
         "duration_ns": SECOND // 10, "gil_ns": round(share * SECOND / 10)}
        for tid, shares in holders.items()
        for second, share in enumerate(shares)
        for tenth in range(10)
    ]  # fmt: skip
    return pl.DataFrame(rows)


def test_the_lock_of_the_interpreter_is_contended_when_it_is_never_free() -> None:
    busy = gil_samples({1: [0.6, 0.96, 0.3, 0.5], 2: [0.39, 0.03, 0.2, 0.45]})
    found = contended_gil({"samples": busy.lazy()})
    # In second 1 one thread alone holds it, in second 2 it is free half of the time.
    rows = found.sort("start_ns").to_dicts()
    assert [(row["start_ns"] - EPOCH) // SECOND for row in rows] == [0, 3]
    assert [row["level"] for row in rows] == [pytest.approx(0.99), pytest.approx(0.95)]
    assert {row["pid"] for row in rows} == {7}
    assert contention._conformed(found).height == 2


def test_a_recording_that_did_not_watch_the_lock_says_nothing_of_it() -> None:
    unwatched = gil_samples({1: [1.0]}).with_columns(gil_ns=pl.lit(None, pl.Int64))
    for samples in (unwatched, unwatched.drop("gil_ns")):
        found = contended_gil({"samples": samples.lazy()})
        assert contention._conformed(found).is_empty()
