"""Slow drifts: what is said of a series is where it begins and where it ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.report.sections import trends
from perfkit.report.sections.trends import drift_ends

S = 10**9
LEVEL = st.floats(0.01, 1e6)


def straight(first: float, last: float, seconds: int) -> dict[str, float]:
    return {
        "typical": (first + last) / 2,
        "slope_per_s": (last - first) / seconds,
        "first_ns": 0,
        "last_ns": seconds * S,
    }


@given(first=LEVEL, last=LEVEL, seconds=st.integers(1, 10**6))
def test_a_straight_series_goes_from_its_first_value_to_its_last(
    first: float, last: float, seconds: int
) -> None:
    ends = drift_ends(straight(first, last, seconds))
    apart = abs(last - first) / ((first + last) / 2)
    if apart > 0.21:
        assert ends == pytest.approx((first, last), rel=1e-6, abs=1e-6)
    elif apart < 0.19:
        assert ends is None


@pytest.mark.parametrize("slope", [-0.1, 0.1])
def test_no_end_is_below_zero(slope: float) -> None:
    # Half of the time near zero, then steep: the slope through the median goes beyond zero.
    row = {"typical": 0.2, "slope_per_s": slope, "first_ns": 0, "last_ns": 10 * S}
    ends = drift_ends(row)
    assert ends is not None
    assert sorted(ends) == [0.0, pytest.approx(0.7)]


@pytest.mark.parametrize(
    ("most", "unit", "text"),
    [
        (1.0, "callbacks blocking", "1 callback blocking"),
        (7.0, "callbacks blocking", "7 callbacks blocking"),
        (22.0, "{thread}", "22 threads"),
        (1.0, "{thread}", "1 thread"),
        (5.87, "tasks per core", "5.87 tasks per core"),
        (0.94, "share of time", "94 %"),
        (2.0, "s", "2 waiting"),
        (None, "s", "–"),
    ],
)
def test_how_many_waited_is_counted_in_words(most: float | None, unit: str, text: str) -> None:
    assert trends._level(most, unit) == text
