from __future__ import annotations

from tests.analysis.build import S, analyse

HOUR = 3600 * 10**9


def test_repeats_are_calls_with_arguments_seen_before() -> None:
    arguments = ["{}", "[1]", "{}", "{}"]
    spans = [
        S(number, number * 10, number * 10 + number, trace=number, tool="t", tool_arguments=text)
        for number, text in enumerate(arguments, 1)
    ]
    spans.append(S(9, HOUR - 5, HOUR + 10, trace=9, tool="u", status="error"))
    found = analyse(spans).frame("tool_calls").to_dicts()
    assert [row["tool"] for row in found] == ["u", "t"]
    unknown, known = found
    assert (known["calls"], known["distinct_arguments"], known["repeated_calls"]) == (4, 2, 2)
    assert (known["total_ns"], known["repeat_ns"]) == (1 + 2 + 3 + 4, 3 + 4)
    assert known["rate_per_h"] == 4.0
    assert unknown["errors"] == 1
    assert (
        unknown["distinct_arguments"] is unknown["repeated_calls"] is unknown["repeat_ns"] is None
    )


def test_a_call_inside_a_call_of_the_same_tool_is_part_of_it() -> None:
    spans = [S(1, 0, 100, tool="t"), S(2, 10, 20, 1), S(3, 11, 19, 2, tool="t")]
    spans.append(S(4, 30, 40, 1, tool="other"))
    found = {row["tool"]: row["calls"] for row in analyse(spans).frame("tool_calls").to_dicts()}
    assert found == {"t": 1, "other": 1}


def test_no_spans_give_all_columns() -> None:
    some = analyse([S(1, 0, 9, tool="t")]).frame("tool_calls")
    assert analyse([]).frame("tool_calls").schema == some.schema
