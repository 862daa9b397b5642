"""Times of foreign sources to integer nanoseconds since the Unix epoch."""

from __future__ import annotations

import datetime as dt

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
# Seconds stay below 1e11 until the year 5138, and so on: what the size of a number says of its
# unit.
_UNITS = ((10**11, 10**9), (10**14, 10**6), (10**17, 10**3), (2**63, 1))


def from_text(text: str) -> int | None:
    """Read ISO 8601, UTC unless it says otherwise; null when it is none or before 1970."""
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    delta = moment - _EPOCH
    time_ns = (delta.days * 86_400 + delta.seconds) * 10**9 + delta.microseconds * 1000
    return time_ns if 0 <= time_ns < 2**63 else None


def from_number(value: float) -> int | None:
    """Read Unix seconds, ms, µs or ns, told apart by size; null when it is none of them."""
    for limit, factor in _UNITS:
        if 0 <= value < limit:
            return round(value * factor)
    return None
