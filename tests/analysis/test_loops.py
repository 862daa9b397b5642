from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

from perfkit.analysis.database.loops import FEW, MANY, WRAPPERS
from perfkit.analysis.database.rounds import LONGEST
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
    few: set[int] = set()
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
            elif len(members) >= FEW:
                loops |= {row: place[0] for row in members if row not in few}
                few |= set(members)
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
        (wrapped("item", count=FEW), 2),
        (wrapped("item", count=FEW - 1), None),
        (wrapped("item", "price", count=MANY - 1), None),
    ],
)
def test_the_loop_is_above_what_is_around_each_call(spans: list[S], loop: int | None) -> None:
    calls = found(spans)
    loops = {row["loop"] for row in calls}
    assert loops == {loop} if loop else 2 not in loops
    repeats = analyse(spans).frame("query_repeats").to_dicts()
    assert [row["calls"] for row in repeats] == ([len(calls)] if loop else [])
    if loop:
        assert repeats[0]["rounds"] == len(calls)
        assert (repeats[0]["caller"], repeats[0]["interleaved"]) == ("list", False)


def test_a_span_between_the_wrappers_interleaves() -> None:
    spans = [*wrapped("item"), S(50, 95, 99, 2, name="other")]
    (row,) = analyse(spans).frame("query_repeats").to_dicts()
    assert row["interleaved"]


@pytest.mark.parametrize(("names", "rounds"), [("aaa", 3), ("abc", 0)])
def test_calls_of_nobody_knows_whom_are_told_apart_by_their_names(names: str, rounds: int) -> None:
    spans = [S(1, 0, 1000, kind="server", name="top")]
    for n, name in enumerate(names):
        spans.append(S(10 + n, 100 * n, 100 * n + 20, 1, db_statement="SELECT x FROM t", **QUERY))
        spans.append(S(20 + n, 100 * n + 30, 100 * n + 40, 1, kind="client", name=name))
    (row,) = analyse(spans).frame("query_repeats").to_dicts()
    assert row["rounds"] == rounds


def rounds_slowly(names: list[str], query: str) -> tuple[int, list[int]]:
    """Return the rounds of a query among siblings, and which siblings are in them."""
    at = [place for place, name in enumerate(names) if name == query]
    steps = {later - earlier for earlier, later in pairwise(at)}
    if len(steps) != 1 or not 2 <= min(steps) <= LONGEST:
        return 0, []
    (step,) = steps
    first, last = at[0], at[-1]
    if any(names[place] != names[place + step] for place in range(first, last - step + 1)):
        return 0, []
    while first > at[0] - step + 1 and first > 0 and names[first - 1] == names[first - 1 + step]:
        first -= 1
    until = min(len(names), last + step)
    while last + 1 < until and names[last + 1] == names[last + 1 - step]:
        last += 1
    rounds = (last - first + 1) // step
    return rounds, list(range(first, first + rounds * step))


@pytest.mark.parametrize("seed", range(12))
def test_rounds_equal_the_slow_ones(seed: int) -> None:
    dice = random.Random(seed)
    spans, siblings = [], {}
    for trace in range(1, 12):
        top = 1000 * trace
        spans.append(S(top, 0, 10_000, kind="server", name="top", endpoint="GET /", trace=trace))
        once = [dice.choice("QQRabc") for _ in range(dice.randint(1, LONGEST + 1))]
        names = [dice.choice("Qab") for _ in range(dice.randint(0, 2))] + once * dice.randint(1, 5)
        names += once[: dice.randint(0, len(once))] if dice.random() < 0.7 else ["c"]
        siblings[top] = names
        for place, name in enumerate(names):
            also: Row = {"name": name}
            if name in "QR":
                also = {"db_statement": f"SELECT {name} FROM t", **QUERY}
            start = 10 * place
            spans.append(S(top + place + 1, start, start + 1 + place, top, trace=trace, **also))
    tables = analyse(spans)
    tree = tables.frame("tree")
    seen = 0
    for row in tables.frame("query_repeats").iter_rows(named=True):
        top = tree["span_id"][row["parent_row"]]
        rounds, inside = rounds_slowly(siblings[top], tree["db_statement"][row["first_row"]][7])
        assert (row["rounds"], row["rounds_ns"]) == (rounds, sum(1 + place for place in inside))
        seen += rounds > 2
    assert seen
