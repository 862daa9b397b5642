from __future__ import annotations

from typing import Any

from hypothesis import given

from tests.analysis.build import S, analyse, by_id, traces


def slow_shifts(rows: list[dict[str, Any]]) -> dict[int, int]:
    """Jaeger's adjuster: one host after the other, from the roots down."""
    shifts: dict[int, int] = {}
    for row in rows:  # depth first: the parent is already in its place
        above = rows[row["parent_row"]] if row["parent_row"] is not None else None
        if above is None or row["detached"]:
            shifts[row["row"]] = 0
            continue
        if (row["service"], row["instance"]) == (above["service"], above["instance"]):
            shifts[row["row"]] = shifts[above["row"]]
            continue
        start, end = (row[name] - row["skew_ns"] for name in ("start_ns", "end_ns"))
        moved = shifts[above["row"]]
        begin, finish = (above[name] - above["skew_ns"] + moved for name in ("start_ns", "end_ns"))
        call = row["kind"] == "server" and above["kind"] == "client"
        if end - start > finish - begin:
            shifts[row["row"]] = max(begin - start, 0)
        elif (start >= begin and end <= finish) or (start >= begin and not call):
            shifts[row["row"]] = 0
        else:
            shifts[row["row"]] = begin - start + ((finish - begin) - (end - start)) // 2
    return shifts


@given(traces(damaged=True))
def test_equals_the_slow_walk(spans: list[S]) -> None:
    rows = analyse(spans).frame("tree").to_dicts()
    assert {row["row"]: row["skew_ns"] for row in rows} == slow_shifts(rows)


def call(start: int, end: int, **server: Any) -> list[S]:
    return [
        S(1, 0, 200, kind="server"),
        S(2, 100, 200, 1, kind="client"),
        S(3, start, end, 2, kind="server", service="b", **server),
        S(4, start + 5, start + 10, 3, service="b"),
    ]


def test_a_server_that_seems_to_start_before_its_client_is_centred_in_it() -> None:
    rows = by_id(analyse(call(0, 40)), "tree")
    assert (rows[3]["start_ns"], rows[3]["end_ns"]) == (130, 170)
    assert rows[4]["start_ns"] == 135
    assert rows[3]["skew_ns"] == rows[4]["skew_ns"] == 130
    assert rows[2]["skew_ns"] == 0


def test_a_server_that_ends_too_late_is_centred_too() -> None:
    assert by_id(analyse(call(190, 230)), "tree")[3]["start_ns"] == 130


def test_what_fits_stays() -> None:
    assert by_id(analyse(call(100, 200)), "tree")[3]["skew_ns"] == 0


def test_what_is_longer_than_its_call_moves_only_to_its_start() -> None:
    assert by_id(analyse(call(50, 300)), "tree")[3]["start_ns"] == 100
    assert by_id(analyse(call(150, 300)), "tree")[3]["skew_ns"] == 0


def test_late_work_of_another_service_is_no_skew_unless_it_is_a_server_under_its_client() -> None:
    assert (
        by_id(analyse([*call(190, 230), S(5, 300, 310, 2, service="c")]), "tree")[5]["skew_ns"] == 0
    )


def test_another_replica_of_one_service_has_its_own_clock() -> None:
    spans = [S(1, 100, 200, kind="client", instance="x")]
    spans.append(S(2, 0, 40, 1, kind="server", instance="y"))
    assert by_id(analyse(spans), "tree")[2]["start_ns"] == 130


def test_hosts_in_a_row_are_corrected_one_after_the_other() -> None:
    spans = [S(1, 1000, 1100, kind="client")]
    for number in range(2, 40):
        kind = "client" if number % 2 else "server"
        spans.append(S(number, 0, 100 - number, number - 1, kind=kind, service=f"s{number // 2}"))
    tree = analyse(spans).frame("tree")
    assert (tree["start_ns"] >= 1000).all()
    assert (tree["end_ns"] <= 1100).all()
