"""Chrome's trace events, taken in one by one and sorted by what they nest in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from perfkit.formats.attributes import json_text
from perfkit.importers import json_stream
from perfkit.importers.chrome_flows import Flows
from perfkit.importers.chrome_profile import Profiles
from perfkit.importers.rows import scaled

_US = 1000
_MAX_TEXTS = 100_000
_MAX_NS = 4 * 10**18
_METADATA, _COMPLETE = "M", "X"
_BEGINS = ("B", "b", "S")
_ENDS = ("E", "e", "F")
_INSTANTS = ("i", "I", "R", "n")
_FLOWS = ("s", "t", "f")
_SKIPPED = ("P", "O", "N", "D", "v", "V", "c", "(", ")", "T", "p")
_PROFILES = ("Profile", "ProfileChunk")
Number = int | float | str | None


class Event(msgspec.Struct):
    """An event as it is in the file; times are in µs."""

    ph: str = ""
    ts: Number = None
    dur: Number = None
    pid: int | str | None = None
    tid: int | str | None = None
    name: str | None = None
    cat: str | None = None
    id: int | str | None = None
    id2: Any = None
    bp: str | None = None
    bind_id: int | str | None = None
    flow_in: bool | None = None
    flow_out: bool | None = None
    args: msgspec.Raw = msgspec.Raw(b"")


decode = msgspec.json.Decoder(Event).decode

Track = tuple[Any, ...]
"""What nests by times: the slices of one thread, or of one asynchronous id."""


@dataclass(slots=True)
class Slice:
    """A piece of time with a name, or a moment; times are in ns as the file counts them."""

    start: int
    end: int | None
    name: str
    category: str | None
    args: msgspec.Raw
    """As they are in the file; there are millions of slices, and all must be there to be nested."""
    bound: Event | None = None
    """The event, when an arrow begins or ends in it."""
    more: msgspec.Raw | None = None
    """Arguments at its end."""


@dataclass
class Trace:
    """The events of a file, by what they are."""

    slices: dict[Track, list[Slice]] = field(default_factory=dict)
    open: dict[Track, list[Slice]] = field(default_factory=dict)
    """Slices that have begun and not ended, the innermost last."""
    instants: dict[Track, list[Slice]] = field(default_factory=dict)
    counters: list[tuple[int, Event]] = field(default_factory=list)
    processes: dict[Any, str] = field(default_factory=dict)
    threads: dict[tuple[Any, Any], str] = field(default_factory=dict)
    texts: dict[str | None, str | None] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    profiles: Profiles = field(default_factory=Profiles)
    flows: Flows = field(default_factory=Flows)
    first: int | None = None
    """The earliest time of any event, and the latest."""
    last: int = 0

    def text(self, text: str | None) -> str | None:
        """Return the one text that is equal: names repeat, and are not kept a million times."""
        return self.texts.setdefault(text, text) if len(self.texts) < _MAX_TEXTS else text

    def drop(self, reason: str) -> None:
        """Count an event that is left out."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1

    def take(self, event: Event) -> None:
        """Take an event in, or count why not."""
        phase = event.ph
        if phase == _METADATA:
            self._name(event)
            return
        profiled = phase == "P" and event.name in _PROFILES
        if not profiled and (phase in _SKIPPED or not phase):
            self.drop("sample or other event that is no slice")
            return
        ts = scaled(event.ts, _US)
        if ts is None or abs(ts) > _MAX_NS:
            self.drop("event without a plausible time")
            return
        self.first = ts if self.first is None else min(self.first, ts)
        self.last = max(self.last, ts)
        if profiled:
            refusal = self.profiles.take(
                event.pid, event.tid, event.id, event.name or "", decoded(event.args)
            )
            if refusal is not None:
                self.drop(refusal)
        elif phase in _FLOWS:
            key = (event.cat, event.name, _id(event))
            self.flows.take(_track(event), ts, phase, key, enclosing=event.bp == "e")
        elif phase == "C":
            self.counters.append((ts, event))
        else:
            self._place(event, ts)

    def _name(self, event: Event) -> None:
        """Remember what a process or a thread is called."""
        name = decoded(event.args).get("name")
        if event.name == "process_name" and name:
            self.processes[event.pid] = str(name)
        elif event.name == "thread_name" and name:
            self.threads[event.pid, event.tid] = str(name)

    def _place(self, event: Event, ts: int) -> None:
        """Put a slice, its begin, its end or an instant on its track."""
        track = _track(event)
        if event.ph in _ENDS:
            self._close(track, ts, event)
            return
        bound = event if event.bind_id is not None and (event.flow_in or event.flow_out) else None
        name, category = self.text(event.name) or "", self.text(event.cat)
        slice_ = Slice(ts, None, name, category, event.args, bound)
        if event.ph == _COMPLETE:
            duration = scaled(event.dur if event.dur is not None else 0, _US)
            if duration is None or not 0 <= duration < _MAX_NS:
                self.drop("event with an implausible duration")
                return
            slice_.end = ts + duration
            self.last = max(self.last, slice_.end)
            self.slices.setdefault(track, []).append(slice_)
        elif event.ph in _BEGINS:
            self.open.setdefault(track, []).append(slice_)
            self.slices.setdefault(track, []).append(slice_)
        elif event.ph in _INSTANTS:
            self.instants.setdefault(track, []).append(slice_)
        else:
            self.drop("event of an unknown phase")

    def _close(self, track: Track, ts: int, event: Event) -> None:
        """End the innermost open slice, or that of the event's name when another is innermost."""
        stack = self.open.get(track)
        if not stack:
            self.drop("end of a slice that did not begin")
            return
        at = len(stack) - 1
        if event.name:
            at = next((n for n in range(at, -1, -1) if stack[n].name == event.name), at)
        slice_ = stack.pop(at)
        if ts < slice_.start:
            slice_.end = slice_.start
            self.drop("slice that ends before it starts, taken as of no length")
        else:
            slice_.end = ts
        slice_.more = event.args


def _track(event: Event) -> Track:
    if event.ph in ("b", "e", "n", "S", "F"):
        return ("async", event.pid, event.cat, _id(event))
    return ("thread", event.pid, event.tid)


def _id(event: Event) -> Any:
    """Return an event's id; the local one of a process together with that."""
    if event.id2 is None:
        return event.id
    local = isinstance(event.id2, dict) and "local" in event.id2
    return (event.pid if local else None, json_text(event.id2))


def decoded(args: msgspec.Raw) -> dict[str, Any]:
    """Return the arguments of an event; none where they are no object."""
    try:
        found = msgspec.json.decode(args) if args else None
    except json_stream.BAD_JSON:
        return {}
    return found if isinstance(found, dict) else {}
