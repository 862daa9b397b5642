"""`loop_blocking` where spans say in which steps of the event loop they ran."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.analysis.sampled import Sample
from tests.analysis.test_loop_blocking import ASGI, CALLBACK, HANDLER, MS, READ, SELECT, found, row
from tests.analysis.test_span_steps import capture, request

BUSY = (*CALLBACK, ASGI, HANDLER)


def blocked(
    samples: list[Sample], *requests: tuple[int, int, str | None], rate: float = 100
) -> list[tuple[str, float]]:
    """Return what blocked the loop; requests are given in ms with their steps."""
    spans = [request(start * 1000, end * 1000, steps) for start, end, steps in requests]
    return found(capture(spans, samples, rate).frame("loop_blocking"))


def steps(*intervals: tuple[int, int]) -> str:
    """Return the attribute for steps given in ms since the start of the span."""
    parts, before = [], 0
    for start, end in intervals:
        parts.append(f"{(start - before) * 1000} {(end - start) * 1000}")
        before = end
    return " ".join([*parts, "."])


def test_a_stack_that_stands_after_its_step_is_over_blocks_no_longer() -> None:
    stood = [row(BUSY, 0, 500, state="running"), row(SELECT, 500, 600, state="idle")]
    assert blocked(stood, (0, 600, steps((0, 30), (230, 240)))) == [("handle", 30)]
    assert blocked(stood, (0, 600, None)) == [("handle", 500)]
    assert blocked(stood, (0, 600, steps((0, 500), (550, 551)))) == [("handle", 500)]
    # Of a span that had more steps than it says nothing is known after the last one.
    more = steps((0, 30)).replace(".", "+")
    assert blocked(stood, (0, 600, more)) == [("handle", 500)]


def test_a_sum_of_calls_in_one_step_is_one_time() -> None:
    turns = [row(BUSY, 0, 15), row((*BUSY, READ), 15, 30), row(BUSY, 30, 50)]
    assert blocked(turns, (0, 90, steps((0, 50), (80, 81)))) == [("handle", 50)]


@pytest.mark.parametrize(
    ("step_ms", "rate", "expected"),
    [
        # The step before was so long that the stack is of it, and lasted as long as that.
        (30, 100, [("handle", 30)]),
        # Code that no span covers may run between steps, if it stood longer than looks are late.
        (5, 100, [("handle", 65)]),
        (5, 25, []),
    ],
)
def test_a_stack_that_is_first_seen_between_steps_may_be_late(
    step_ms: int, rate: float, expected: list[Any]
) -> None:
    late = [row(SELECT, 0, 35, state="idle"), row(BUSY, 35, 100), row(SELECT, 100, 200)]
    said = steps((0, step_ms), (190, 191))
    assert blocked(late, (0, 200, said), rate=rate) == expected


def test_the_end_of_a_request_ends_its_stack() -> None:
    stood = [row(BUSY, 0, 300)]
    first, second = (0, 40, steps((0, 40))), (200, 240, steps((0, 40)))
    assert blocked(stood, first, second) == [("handle", 40), ("handle", 40)]


@given(
    st.lists(st.tuples(st.sampled_from(["busy", "idle"]), st.integers(1, 60)), max_size=10),
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=6),
)
def test_times_equal_a_walk_by_half_milliseconds(
    drawn: list[tuple[str, int]], gaps_and_steps: list[tuple[int, int]]
) -> None:
    # Stacks change at half milliseconds and steps at whole ones, so that no two fall together.
    samples, seen = [], ["idle"]
    began = [-1]
    for name, length in drawn:
        at = len(seen) / 2
        samples.append(row(BUSY if name == "busy" else SELECT, at, at + length))
        began += [len(seen)] * 2 * length
        seen += [name] * 2 * length
    intervals, at_ms = [], 0
    for gap, length in gaps_and_steps:
        intervals.append((at_ms + gap, at_ms + gap + length))
        at_ms += gap + length
    end_ms = max(at_ms + 1, len(seen) // 2 + 1)
    edges = sorted({edge for each in intervals for edge in each})

    def part(half: int) -> int:
        """The number of the step or of the pause; steps are odd."""
        return sum(half >= 2 * edge for edge in edges)

    runs: list[list[int]] = []
    for half, name in enumerate(seen):
        stands = part(half) % 2 == 1 or part(began[half]) == part(half)
        if name != "busy" or not stands:
            continue
        if runs and runs[-1][1] == half and part(half - 1) == part(half):
            runs[-1][1] = half + 1
        else:
            runs.append([half, half + 1])
    expected = [("handle", (end - start) / 2) for start, end in runs if end - start >= 40]
    table = blocked(samples, (0, end_ms, steps(*intervals)), rate=10**10)
    assert sorted(table) == sorted(expected)
    assert all(duration * MS >= 20 * MS for _, duration in table)
