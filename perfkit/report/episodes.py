"""What left its baseline at one time, told as one: episodes of the table `shifts`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from perfkit import units

Shift = dict[str, Any]
"""One row of the table `shifts`."""

_TOGETHER = 0.5
"""Shifts are one episode where they share so much of the longer of the two (our own choice)."""
_DAY_NS = 86_400_000_000_000
_SYMPTOMS = ("latency", "errors")
_ORDER = {"errors": 0, "latency": 1, "resource": 2, "rate": 3}
_LEVELS = {"p95_ns": 0, "p50_ns": 1}
_KNOWN_SO_FAR = 10.0
"""Changes by more than this factor are not given as one: from nothing, any is infinite."""
_NAMES = {
    "requests_per_s": "rate",
    "error_ratio": "errors",
    "p50_ns": "p50",
    "p95_ns": "p95",
}


@dataclass(frozen=True)
class Episode:
    """Shifts of about the same time, what users felt first."""

    shifts: list[Shift]

    @property
    def leading(self) -> Shift:
        """The shift that says it best: latency or errors of an endpoint, if there is any."""
        return self.shifts[0]

    @property
    def felt(self) -> bool:
        """Whether requests got slower, or failed more often."""
        return self.leading["kind"] in _SYMPTOMS and self.leading["direction"] == "up"

    @property
    def start_ns(self) -> int:
        """Begin of the leading shift."""
        return int(self.leading["start_ns"])

    @property
    def end_ns(self) -> int:
        """End of the leading shift."""
        return int(self.leading["end_ns"])


def find(shifts: list[Shift]) -> list[Episode]:
    """Group shifts, given the clearest first, into episodes: those that users felt first.

    Each shift joins the first episode whose clearest shift it shares enough time with, so that
    episodes do not chain up.
    """
    groups: list[list[Shift]] = []
    for shift in shifts:
        for group in groups:
            if _together(group[0], shift):
                group.append(shift)
                break
        else:
            groups.append([shift])
    episodes = [Episode(sorted(group, key=_importance)) for group in groups]
    return sorted(episodes, key=lambda one: (not one.felt, -_felt_ns(one), one.start_ns))


def _together(one: Shift, other: Shift) -> bool:
    shared = min(one["end_ns"], other["end_ns"]) - max(one["start_ns"], other["start_ns"])
    longer = max(one["duration_ns"], other["duration_ns"])
    return bool(shared >= _TOGETHER * longer)


def _importance(shift: Shift) -> tuple[Any, ...]:
    """Order in an episode: what got worse for users, of one endpoint before all together."""
    worse = shift["kind"] in _SYMPTOMS and shift["direction"] == "up"
    return (
        not worse,
        shift["endpoint"] is None,
        -_extra_ns(shift) if worse else 0,
        _ORDER.get(shift["kind"], 9) if not worse else -_ORDER[shift["kind"]],
        _LEVELS.get(shift["measure"], 9),
        -shift["score"],
    )


def _extra_ns(shift: Shift) -> int:
    return shift["extra_ns"] or 0


def _felt_ns(episode: Episode) -> int:
    return max(_extra_ns(shift) for shift in episode.shifts)


def amount(series: dict[str, Any], number: float) -> str:
    """Write a value of a series' measure."""
    if series["unit"] == "s":
        return units.duration(number * 1e9)
    write = {"ns": units.duration, "bytes": units.size, "ratio": units.percent, "rate": units.rate}
    return write.get(page_unit(series), units.number)(number)


def size(shift: Shift) -> str:
    """Say from what to what it went: `74 ms → 537 ms (7.3 ×)`."""
    text = f"{amount(shift, shift['expected'])} → {amount(shift, shift['mean'])}"
    ratio = shift["change_ratio"]
    if ratio is None or shift["kind"] == "errors":
        return text
    if 1.0 <= ratio < _KNOWN_SO_FAR:
        return f"{text} ({1 + ratio:.1f} ×)"
    if -1.0 < ratio < 1.0:
        return f"{text} ({'+' if ratio > 0 else '−'}{units.percent(abs(ratio))})"
    return text


def page_unit(series: dict[str, Any]) -> str:
    """Return the unit of a series as the page's scripts know it."""
    if series["unit"] == "ns" or series["unit"] == "By":
        return "ns" if series["unit"] == "ns" else "bytes"
    share = series["kind"] == "errors" or (
        series["unit"] == "1" and series["measure"].endswith(("utilization", "ratio"))
    )
    if series["kind"] == "rate":
        return "rate"
    return "ratio" if share else "count"


def short(series: dict[str, Any]) -> str:
    """Return the bare name of a measure: `p95`, `rate`, `process.memory.usage`."""
    return _NAMES.get(series["measure"], str(series["measure"]))


def name(series: dict[str, Any]) -> str:
    """Say what a series measures: `p95 of POST /orders`, `process.memory.usage of pid 7`."""
    measure = short(series)
    if series["kind"] != "resource":
        return f"{measure} of {series['endpoint'] or 'all requests'}"
    whose = [text for text in _labels(series["attributes"]) if text]
    if series["instance"] or series["service"]:
        whose.append(series["instance"] or series["service"])
    return f"{measure} of {', '.join(whose)}" if whose else measure


def _labels(attributes: str | None) -> list[str]:
    """Return the values of a metric's attributes, with the last part of their names if bare."""
    try:
        content = json.loads(attributes) if attributes else {}
    except ValueError:
        return [attributes or ""]
    if not isinstance(content, dict):
        return [str(content)]
    return [
        value if isinstance(value, str) else f"{key.rpartition('.')[2]} {value}"
        for key, value in content.items()
    ]


def when(shift: Shift, origin_ns: int, end_ns: int) -> str:
    """Say when it was: a spike `for 60 s from 12:04:00`, a change `since 12:04:00`."""
    dated = end_ns - origin_ns >= _DAY_NS
    near = max(shift["bucket_width_ns"], 1)
    if shift["shape"] == "spike":
        length = units.duration(shift["duration_ns"])
        return f"for {length} from {clock(shift['start_ns'], dated=dated)}"
    if shift["start_ns"] - origin_ns <= near < end_ns - shift["end_ns"]:
        return f"until {clock(shift['end_ns'], dated=dated)}"
    return f"since {clock(shift['changed_ns'], dated=dated)}"


def others(episode: Episode, endpoints: list[str]) -> list[str]:
    """Return those of the endpoints, known to have series, that kept their pace meanwhile."""
    suffered = {shift["endpoint"] for shift in episode.shifts}
    return [endpoint for endpoint in endpoints if endpoint not in suffered]


def clock(ts_ns: int, *, dated: bool = False) -> str:
    """Write a moment, UTC, to the second: buckets are whole seconds."""
    date, _, time = units.timestamp(ts_ns).partition(" ")
    return f"{date + ' ' if dated else ''}{time.partition('.')[0]} UTC"
