from __future__ import annotations

import random
from typing import Any

import pytest

from perfkit.analysis.database.loops import MANY, WRAPPERS
from tests.analysis.build import S, analyse

Row = dict[str, Any]
QUERY = {"kind": "client", "db_system": "postgresql"}


def found(spans: list[S]) -> list[Row]:
    tree = analyse(spans).frame("tree")
    calls = analyse(spans).frame("query_calls")
    return [
        {
            "call": tree["span_id"][row["row"]],
            "loop": None if row["loop_row"] is None else tree["span_id"][row["loop_row"]],
        }
        for row in calls.iter_rows(named=True)
    ]


def slowly(spans: list[S]) -> dict[int, int | None]:
    """Return the id of the loop's span for each call, as the docstring of `loop_rows` says it."""
    rows = analyse(spans).frame("tree").to_dicts()
    calls = [row for row in rows if row["category"] == "database"]

    def climb(call: Row) -> list[tuple[int, tuple[str, ...]]]:
        """Return the spans above a call that may be its loop, each with the names on the way."""
        steps: list[tuple[int, tuple[str, ...]]] = []
        at, way = call["parent_row"], ()
        while at is not None and len(steps) <= WRAPPERS:
            steps.append((at, way))
            span = rows[at]
            if span["category"] != "internal" or at == call["entry_row"]:
                break
            at, way = span["parent_row"], (*way, span["name"])
        return steps

    left = {call["row"]: climb(call) for call in calls}
    loops = {row: steps[0][0] if steps else None for row, steps in left.items()}
    for height in range(WRAPPERS + 1):
        left = {row: steps for row, steps in left.items() if len(steps) > height}
        groups: dict[Any, list[int]] = {}
        for row, steps in left.items():
            groups.setdefault((steps[height], rows[row]["db_statement"]), []).append(row)
        for (place, _), members in groups.items():
            if len(members) >= MANY:
                for row in members:
                    loops[row] = place[0]
                    del left[row]
    ids = {row["row"]: row["span_id"] for row in rows}
    return {ids[row]: None if loop is None else ids[loop] for row, loop in loops.items()}


@pytest.mark.parametrize("seed", range(30))
def test_loops_equal_the_slow_ones(seed: int) -> None:
    dice = random.Random(seed)
    spans = [S(1, 0, 10_000, kind="server", name="top", endpoint="GET /")]
    inner = [1]
    for number in range(2, 90):
        parent = dice.choice(inner[-12:] if dice.random() < 0.5 else inner)
        start = number * 10
        if dice.random() < 0.45:
            kind = "server" if dice.random() < 0.1 else "internal"
            spans.append(S(number, start, start + 9, parent, kind=kind, name=dice.choice("aab")))
            inner.append(number)
        else:
            text = f"SELECT {dice.choice('xxy')} FROM t"
            spans.append(S(number, start, start + 5, parent, db_statement=text, **QUERY))
    assert {row["call"]: row["loop"] for row in found(spans)} == slowly(spans)


def wrapped(*names: str, count: int = MANY, wrappers: int = 1) -> list[S]:
    """Return `count` calls below the span 2, each in spans of its own."""
    spans = [
        S(1, 0, 10_000, kind="server", name="top", endpoint="GET /"),
        S(2, 0, 9_000, 1, name="list"),
    ]
    for number in range(count):
        start, above = 100 * number, 2
        for depth in range(wrappers):
            own = 1000 * (number + 1) + depth
            spans.append(S(own, start, start + 90, above, name=names[number % len(names)]))
            above = own
        text = f"SELECT * FROM item WHERE id = {number}"
        spans.append(S(100 + number, start + 10, start + 50, above, db_statement=text, **QUERY))
    return spans


@pytest.mark.parametrize(
    ("spans", "loop"),
    [
        (wrapped("item"), 2),
        (wrapped("item", wrappers=WRAPPERS), 2),
        (wrapped("item", wrappers=WRAPPERS + 1), None),
        (wrapped("item", count=MANY - 1), None),
        (wrapped("item", "price"), None),
    ],
)
def test_the_loop_is_above_what_is_around_each_call(spans: list[S], loop: int | None) -> None:
    loops = {row["loop"] for row in found(spans)}
    assert loops == {loop} if loop else 2 not in loops
    repeats = analyse(spans).frame("query_repeats").to_dicts()
    assert [row["calls"] for row in repeats] == ([MANY] if loop else [])
    if loop:
        assert (repeats[0]["caller"], repeats[0]["interleaved"]) == ("list", False)


def test_a_span_between_the_wrappers_interleaves() -> None:
    spans = [*wrapped("item"), S(50, 95, 99, 2, name="other")]
    (row,) = analyse(spans).frame("query_repeats").to_dicts()
    assert row["interleaved"]
