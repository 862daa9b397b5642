"""Numbers become text in one place, and the text is right."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit import units


@pytest.mark.parametrize(
    ("value_ns", "text"),
    [
        (0, "0 s"),
        (999, "999 ns"),
        (1_000, "1 µs"),
        (999_499, "999 µs"),
        (999_600, "1 ms"),
        (1_234_567, "1.23 ms"),
        (12_340_000, "12.3 ms"),
        (999_949_999_999 // 1000, "1 s"),
        (59_940_000_000, "59.9 s"),
        (100_000_000_000, "1 min 40 s"),
        (120_000_000_000, "2 min"),
        (3_600_000_000_000, "1 h"),
        (5_400_000_000_000, "1 h 30 min"),
        (-1_500_000, "-1.5 ms"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_duration(value_ns: float | None, text: str) -> None:
    assert units.duration(value_ns) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234567, "1,234,567"), (0.12345, "0.123"), (12.5, "12.5"), (1234.5, "1,234")],
)
def test_number(value: float, text: str) -> None:
    assert units.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5 GiB")]
)
def test_size(value: float, text: str) -> None:
    assert units.size(value) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (0, "0 %"),
        (0.125, "12 %"),
        (0.055, "5.5 %"),
        (0.0004, "<0.1 %"),
        (1, "100 %"),
        (2.5, "250 %"),
    ],
)
def test_percent(ratio: float, text: str) -> None:
    assert units.percent(ratio) == text


def test_ranges_and_rates() -> None:
    assert units.percent_range(0.55, 0.62) == "55–62 %"
    assert units.percent_range(0.5, 0.5) == "50 %"
    assert units.rate(25.0) == "25/s"
    assert units.rate(0.1) == "6/min"
    assert units.rate(340 / 3600) == "5.67/min"
    assert units.rate(12 / 3600) == "12/h"


@given(st.integers(0, 10**18))
def test_duration_is_right_to_three_digits(value_ns: int) -> None:
    factors = {"ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9, "min": 60e9, "h": 3600e9}
    parts = re.findall(r"([\d.]+) (ns|µs|ms|s|min|h)", units.duration(value_ns))
    read_ns = sum(float(number) * factors[unit] for number, unit in parts)
    # Above an hour, whole minutes: half of one is 0.83 % of an hour.
    assert read_ns == pytest.approx(value_ns, rel=0.0084, abs=0.5)


@given(st.sampled_from(["ns", "us", "ms", "s", "m", "min", "h", "d"]), st.integers(0, 10**6))
def test_parse_duration_round_trip(unit: str, value: int) -> None:
    factor = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "d": 86400 * 10**9}
    factor |= {"m": 60 * 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}
    assert units.parse_duration(f"{value}{unit}") == value * factor[unit]


@pytest.mark.parametrize("text", ["", "x", "-5s", "5 parsecs", "nan", "inf", "1e400"])
def test_parse_duration_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        units.parse_duration(text)


@pytest.mark.parametrize(
    ("value_ns", "text"),
    [(0, "1970-01-01 00:00:00.000Z"), (1_795_416_395_553_000_000, "2026-11-23 06:46:35.553Z")],
)
def test_timestamp(value_ns: int, text: str) -> None:
    assert units.timestamp(value_ns) == text


def test_timestamp_out_of_range_is_still_text() -> None:
    assert units.timestamp(10**30) == f"{10**30} ns"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (29_772_495, "By", "28.4 MiB"),
        (29_772_495, "By/s", "28.4 MiB/s"),
        (0.0123, "s", "12.3 ms"),
        (250, "ms", "250 ms"),
        (1.58, "s/s", "1.58 s/s"),
        (4.42, "1/s", "4.42/s"),
        (12, "{thread}", "12"),
        (12.5, "Cel", "12.5 Cel"),
        (0.5, None, "0.5"),
        (-2048, "By", "-2 KiB"),
        (None, "By", "–"),
        (float("nan"), "s", "–"),
    ],
)
def test_quantity(value: float | None, unit: str | None, text: str) -> None:
    assert units.quantity(value, unit) == text
