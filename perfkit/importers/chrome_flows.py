"""Flow arrows of Chrome's trace events: from the slice in which one begins to that where it ends.

An arrow begins with `s`, may pass by with `t` and ends with `f`, all of one category and id; or
slices say it themselves, by `bind_id` with `flow_out` and `flow_in`. An end belongs to the next
slice of its thread, unless it says `"bp":"e"`: then, as all others, to the one around it.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from perfkit.importers.rows import Id

_PHASES = {"s": 0, "t": 1, "f": 2}
Span = tuple[Id, int]


class Placed(NamedTuple):
    """A slice that became a span."""

    start: int
    end: int
    span: Span


class _Point(NamedTuple):
    ts: int
    phase: int
    key: Any
    next: bool


@dataclass
class Flows:
    """Collects the ends of arrows, and finds their slices when these are known."""

    _points: dict[Any, list[_Point]] = field(default_factory=dict)
    _ends: dict[Any, list[tuple[int, int, Span]]] = field(default_factory=dict)

    def take(self, track: Any, ts: int, phase: str, key: Any, *, enclosing: bool) -> None:
        """Take an end of an arrow on a track."""
        at_next = phase == "f" and not enclosing
        self._points.setdefault(track, []).append(_Point(ts, _PHASES[phase], key, at_next))

    def bind(self, key: Any, ts: int, span: Span, *, into: bool, out: bool) -> None:
        """Take a slice that says itself that an arrow comes or goes."""
        phase = 1 if into and out else 2 if into else 0
        self._ends.setdefault(key, []).append((ts, phase, span))

    def on(self, track: Any) -> bool:
        """Whether arrows touch a track."""
        return track in self._points

    def place(self, track: Any, slices: list[Placed]) -> int:
        """Find the slices of a track's points; `slices` by start, the outer first.

        Returns how many have none.
        """
        starts = [one.start for one in slices]
        around: list[Placed] = []
        at = missing = 0
        for point in sorted(self._points.get(track, ())):
            while at < len(slices) and starts[at] <= point.ts:
                around.append(slices[at])
                at += 1
            while around and around[-1].end < point.ts:
                around.pop()
            found = around[-1] if around else None
            if point.next:
                following = bisect.bisect_left(starts, point.ts)
                found = slices[following] if following < len(slices) else None
            if found is None:
                missing += 1
            else:
                ends = self._ends.setdefault(point.key, [])
                ends.append((point.ts, point.phase, found.span))
        return missing

    def arrows(self) -> Iterator[tuple[Span, Span]]:
        """Yield (slice where an arrow arrives, slice from which it comes)."""
        for ends in self._ends.values():
            before: Span | None = None
            for _, phase, span in sorted(ends):
                if phase and before is not None and before != span:
                    yield span, before
                if phase < 2:
                    before = span
