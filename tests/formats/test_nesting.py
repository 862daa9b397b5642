from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perfkit.formats.nesting import enclosing

INTERVALS = st.lists(
    st.tuples(st.integers(0, 12), st.one_of(st.none(), st.integers(0, 8))).map(
        lambda pair: (pair[0], None if pair[1] is None else pair[0] + pair[1])
    ),
    max_size=9,
)


@given(INTERVALS, st.sets(st.integers(0, 8)))
def test_the_parent_is_the_smallest_interval_around(
    intervals: list[tuple[int, int | None]], roots: set[int]
) -> None:
    infinite = 10**6
    expected: list[int | None] = []
    ambiguous = 0
    for index, (start, end) in enumerate(intervals):
        needed = start if end is None else end
        around = []
        for other, (begin, until) in enumerate(intervals):
            reach = infinite if until is None else until
            if other == index or begin > start or reach < needed:
                continue
            # Of intervals that enclose each other, the one that is put first encloses.
            if (begin, -reach, other) < (start, -(infinite if end is None else end), index):
                size = infinite if until is None else until - begin
                around.append((size, -begin, reach, -other, other))
        if index in roots:
            expected.append(None)
            continue
        expected.append(min(around)[-1] if around else None)
        ambiguous += sum(entry[-1] in roots for entry in around) > 1
    assert enclosing(intervals, roots) == (expected, ambiguous)


def test_a_request_with_two_levels() -> None:
    # 0 |--------------------|      request
    # 1   |---------|               call in it
    # 2     |---|                   call in that
    # 3                |-----...    still open
    # 4                  |--|       in the open one
    intervals = [(0, 20), (2, 12), (4, 8), (15, None), (17, 19)]
    assert enclosing(intervals, {0}) == ([None, 0, 1, 0, 0], 0)


def test_an_open_span_encloses_what_nothing_finite_does() -> None:
    assert enclosing([(0, None), (5, 8), (6, 7)], {0}) == ([None, 0, 1], 0)
