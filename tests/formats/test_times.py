from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.formats import times


@given(
    st.datetimes(dt.datetime(1970, 1, 2), dt.datetime(2250, 1, 1)),
    st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)),
)
def test_text_is_read_to_the_microsecond(moment: dt.datetime, offset: dt.timedelta) -> None:
    micros = (moment - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1)
    assert times.from_text(moment.isoformat(" ")) == micros * 1000
    offset = dt.timedelta(minutes=offset // dt.timedelta(minutes=1))
    elsewhere = moment.replace(tzinfo=dt.UTC).astimezone(dt.timezone(offset))
    assert times.from_text(elsewhere.isoformat()) == micros * 1000


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-13-01", "1969-12-31", "12:00", "9999-01-01"]
)
def test_what_is_no_time(text: str) -> None:
    assert times.from_text(text) is None


def test_a_number_says_its_unit_by_its_size() -> None:
    for factor in (1, 10**3, 10**6, 10**9):
        assert times.from_number(1_700_000_000 * factor) == 1_700_000_000 * 10**9
    assert times.from_number(1_700_000_000.5) == 1_700_000_000_500_000_000
    assert times.from_number(-1) is None
    assert times.from_number(1e30) is None
    assert times.from_number(float("nan")) is None
