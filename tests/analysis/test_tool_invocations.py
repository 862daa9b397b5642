from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tests.analysis.build import S, analyse

Row = dict[str, Any]
TOP = S(1, 0, 100_000, kind="server", name="run", endpoint="POST /agent")


def call(number: int, start: int, arguments: str | None = "{}", **columns: Any) -> S:
    result = columns.pop("result", None)
    if result is not None:
        columns["attributes"] = json.dumps({"gen_ai.tool.call.result": result})
    known = {"tool": "find", "tool_arguments": arguments, "name": "execute_tool find", **columns}
    return S(number, start, start + 50, 1, **known)


def found(*spans: S) -> list[Row]:
    tables = analyse([TOP, *spans])
    ids = tables.frame("tree")["span_id"]
    rows = tables.frame("tool_invocations").to_dicts()
    return [{**row, "id": ids[row["row"]]} for row in rows]


@pytest.mark.parametrize("seed", range(20))
def test_invocations_equal_the_slow_ones(seed: int) -> None:
    dice = random.Random(seed)
    spans, calls = [], []
    for number in range(2, 40):
        start = number * 100
        if dice.random() < 0.2:
            spans.append(S(number, start, start + 50, 1, kind="client", name="POST"))
            continue
        text = dice.choice(['{"a": 1, "b": "X"}', '{"b":"x","a":1}', '{"a": 2}', None])
        plain = None if text is None else json.dumps(json.loads(text.lower()), sort_keys=True)
        result = dice.choice([None, "some words here", "quite another text"])
        failed = dice.random() < 0.1
        spans.append(call(number, start, text, result=result, status="error" if failed else "ok"))
        if not failed:
            calls.append((number, start, plain, result))
    rows = {row["id"]: row for row in found(*spans)}
    assert rows.keys() == {one[0] for one in calls}
    writes = [span.start for span in spans if span.columns["name"] == "POST"]
    for number, start, plain, result in calls:
        row = rows[number]
        same = [one for one in calls if one[2] == plain]
        before = [one for one in same if one[1] < start]
        first = (before or [(number, start, plain, result)])[0]
        assert (row["question"] is None) == (plain is None)
        assert row["number"] == len(before) + 1
        assert row["last"] == (same[-1][0] == number)
        assert row["gap_ns"] == (start - before[-1][1] - 50 if before else None)
        known = result is not None and first[3] is not None
        assert row["alike"] == (result == first[3] if known else None)
        assert row["result_bytes"] == (None if result is None else len(result))
        assert row["http_writes"] == sum(first[1] < at < start for at in writes)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("ok", "ok", True),
        ("ok", "no", False),
        ("", "", True),
        ("", "ok", False),
        (" ".join(map(str, range(40))), " ".join(map(str, range(41))), True),
        (" ".join(map(str, range(40))), " ".join(map(str, range(60))), False),
        ("Found: 3 Items in /shop", '{"found": 3, "items": "in shop"}', True),
        ("a b " * 10 + "c", "b a " * 10 + "d", False),
        ({"state": "running"}, {"state": "done"}, False),
    ],
)
def test_results_are_alike_by_their_pairs_of_words(one: Any, other: Any, alike: bool) -> None:
    rows = found(call(2, 100, result=one), call(3, 200, result=other))
    assert [row["alike"] for row in rows] == [True, alike]


def test_what_is_asked_does_not_hang_on_how_it_is_written() -> None:
    texts = [
        '{"q": "Red  Shoes", "n": 5}',
        '{"n":5,"q":"red shoes"}',
        "not JSON",
        "Not  json",
        "[1",
    ]
    questions = [row["question"] for row in found(*(
        call(number, number * 100, text) for number, text in enumerate(texts, 2)
    ))]  # fmt: skip
    assert questions[0] == questions[1] != questions[2] == questions[3] != questions[4]
    # Another tool asks another thing.
    both = found(call(2, 100), call(3, 200), call(4, 300, tool="read"), call(5, 400, tool="read"))
    assert len({row["question"] for row in both}) == 2


def test_requests_by_which_tools_and_models_are_asked_are_no_writes() -> None:
    post = {"kind": "client", "name": "POST"}
    spans = [
        call(2, 100),
        S(3, 110, 120, 2, **post),
        S(4, 200, 250, 1, kind="client", name="chat large"),
        S(5, 210, 220, 4, **post),
        call(6, 300),
    ]
    assert [row["http_writes"] for row in found(*spans)] == [0, 0]
    assert [row["http_writes"] for row in found(*spans, S(7, 260, 270, 1, **post))] == [0, 1]


def test_no_tools_give_all_columns() -> None:
    assert analyse([TOP]).frame("tool_invocations").schema == (
        analyse([TOP, call(2, 100, result="x")]).frame("tool_invocations").schema
    )
