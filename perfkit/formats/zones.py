"""Abbreviations of time zones, as logs have them: `CET`, `EST`, `-03`."""

from __future__ import annotations

import datetime as dt
import functools
import re
import zoneinfo

_NUMERIC = re.compile(r"([+-])(\d\d):?(\d\d)?")
_MONTHS = (1, 7)
"""A zone has one abbreviation in winter and one in summer."""


def offset_s(name: str, year: int) -> int | None:
    """Return the seconds east of UTC of an abbreviation; null where it does not say one thing.

    Many are those of several zones (`CST` of Chicago and of Shanghai): then that of this machine's
    zone (or of TZ) counts, if it is one of them.
    """
    if name in ("UTC", "GMT", "Z"):
        return 0
    if numeric := _NUMERIC.fullmatch(name):
        seconds = int(numeric[2]) * 3600 + int(numeric[3] or 0) * 60
        return -seconds if numeric[1] == "-" else seconds
    return _of_all(name, year)


@functools.lru_cache(maxsize=64)
def _of_all(name: str, year: int) -> int | None:
    if not 1970 <= year <= 2200:
        return None
    moments = [dt.datetime(year, month, 1, tzinfo=dt.UTC) for month in _MONTHS]
    found: set[int] = set()
    for key in zoneinfo.available_timezones():
        zone = zoneinfo.ZoneInfo(key)
        found |= {
            _east(at.astimezone(zone)) for at in moments if at.astimezone(zone).tzname() == name
        }
    if len(found) == 1:
        return found.pop()
    own = {_east(at.astimezone()) for at in moments if at.astimezone().tzname() == name}
    return own.pop() if len(own) == 1 else None


def _east(moment: dt.datetime) -> int:
    offset = moment.utcoffset()
    return round(offset.total_seconds()) if offset is not None else 0
