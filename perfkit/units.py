"""The only place where numbers become text for people.

All functions return short text with three significant digits, or an en dash for a missing value.
"""

from __future__ import annotations

import datetime as dt
import math
import re

MISSING = "–"

_TIME_STEPS = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns"))
_SECONDS = {"s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1.0}
_BYTE_STEPS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def _absent(value: float | None) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def number(value: float | None) -> str:
    """Write a plain number: three significant digits, thousands separated."""
    if value is None or _absent(value):
        return MISSING
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    magnitude = abs(value)
    if magnitude >= 100:
        return f"{value:,.0f}"
    return _trim(f"{value:.3g}") if magnitude >= 0.001 else f"{value:.2g}"


def _trim(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def duration(value_ns: float | None) -> str:
    """Write nanoseconds as ns, µs, ms, s, min or h: `1_234_567` -> `1.23 ms`."""
    if value_ns is None or _absent(value_ns):
        return MISSING
    if value_ns == 0:
        return "0 s"
    sign, magnitude = ("-" if value_ns < 0 else ""), abs(value_ns)
    if magnitude >= 3600e9:
        hours, rest = divmod(round(magnitude / 60e9), 60)
        return f"{sign}{hours} h {rest} min" if rest else f"{sign}{hours} h"
    if magnitude >= 99.95e9:
        minutes, seconds = divmod(round(magnitude / 1e9), 60)
        return f"{sign}{minutes} min {seconds} s" if seconds else f"{sign}{minutes} min"
    for step, unit in _TIME_STEPS:
        # 999.6 µs is written 1 ms, not 1e+03 µs.
        if magnitude >= step * 0.9995 or step == 1.0:
            return f"{sign}{_significant(magnitude / step)} {unit}"
    raise AssertionError("the last step is 1.0")


def _significant(value: float) -> str:
    if value >= 99.95:
        return f"{value:.0f}"
    return _trim(f"{value:.3g}")


def size(value_bytes: float | None) -> str:
    """Write bytes with binary prefixes: `1536` -> `1.5 KiB`."""
    if value_bytes is None or _absent(value_bytes):
        return MISSING
    magnitude = abs(value_bytes)
    for step, unit in _BYTE_STEPS:
        if magnitude >= step:
            return f"{'-' if value_bytes < 0 else ''}{_significant(magnitude / step)} {unit}"
    return f"{value_bytes:.0f} B"


def quantity(value: float | None, unit: str | None) -> str:
    """Write a value in its UCUM unit, with `/s` behind that of a rate: `By/s` -> `1.5 MiB/s`."""
    whole, _, per = (unit or "").partition("/")
    rate_of = f"/{per}" if per else ""
    if value is None or _absent(value):
        return MISSING
    if whole == "By":
        return f"{size(value)}{rate_of}"
    if whole in _SECONDS and not rate_of:
        return duration(value * _SECONDS[whole])
    # `{thread}` only says what is counted, and 1 that there is no unit.
    shown = "" if whole == "1" or whole.startswith("{") else whole
    return number(value) + (f" {shown}{rate_of}" if shown else rate_of)


def percent(ratio: float | None) -> str:
    """Write a ratio as per cent: `0.125` -> `12.5 %`."""
    if ratio is None or _absent(ratio):
        return MISSING
    value = ratio * 100
    magnitude = abs(value)
    if magnitude and magnitude < 0.1:
        return "<0.1 %" if value > 0 else ">-0.1 %"
    return f"{value:.0f} %" if magnitude >= 9.995 else f"{_trim(f'{value:.2g}')} %"


def percent_range(low_ratio: float, high_ratio: float) -> str:
    """Write two ratios as one range: `0.55, 0.62` -> `55–62 %`."""
    low, high = percent(low_ratio), percent(high_ratio)
    return high if low == high else f"{low.removesuffix(' %')}–{high}"


def rate(value_per_second: float | None) -> str:
    """Write events per second, minute or hour, whichever gives a readable number."""
    if value_per_second is None or _absent(value_per_second):
        return MISSING
    for factor, unit in ((1.0, "s"), (60.0, "min"), (3600.0, "h")):
        if abs(value_per_second) * factor >= 1 or unit == "h":
            return f"{number(float(f'{value_per_second * factor:.3g}'))}/{unit}"
    raise AssertionError("the last unit is the hour")


def timestamp(value_ns: int | None) -> str:
    """Write a Unix time as UTC: `2026-11-23 20:01:02.345Z`."""
    if value_ns is None:
        return MISSING
    try:
        moment = dt.datetime.fromtimestamp(value_ns // 1_000_000_000, dt.UTC)
    except (ValueError, OverflowError, OSError):
        return f"{value_ns} ns"
    return f"{moment:%Y-%m-%d %H:%M:%S}.{value_ns % 1_000_000_000 // 1_000_000:03d}Z"


def parse_size(text: str) -> int:
    """Read `500MB`, `2 GiB`, `1g` as bytes; prefixes are binary, a bare number is bytes.

    Raises ValueError when the text is not a size.
    """
    match = re.fullmatch(r"([0-9.]+)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    powers = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
    try:
        if match is None:
            raise ValueError
        return round(float(match[1]) * float(1024 ** powers[match[2]]))
    except ValueError:
        raise ValueError(f"{text!r} is not a size; write for example 500MiB or 2GiB") from None


def parse_duration(text: str) -> int:
    """Read `30s`, `1.5 m`, `250ms`, `2h`, `1d` as nanoseconds; a bare number is seconds.

    Raises ValueError when the text is not a duration.
    """
    units = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9}
    units |= {"": 10**9, "m": 60 * 10**9, "min": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
    stripped = text.strip().lower()
    digits = stripped.rstrip("abcdefghijklmnopqrstuvwxyzµ ")
    unit = stripped[len(digits) :].strip()
    if unit not in units:
        raise ValueError(f"{text!r} is not a duration; write for example 30s, 500ms or 5m")
    try:
        value = float(digits)
    except ValueError:
        raise ValueError(
            f"{text!r} is not a duration; write for example 30s, 500ms or 5m"
        ) from None
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{text!r} is not a duration; it must be zero or more")
    return round(value * units[unit])
