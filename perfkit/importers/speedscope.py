"""speedscope's own format: py-spy, pyinstrument, and whatever exports for its page.

A profile is one thread's, sampled (stacks with weights) or evented (frames that open and close).
Times count from the profile's start. A sampling profiler that leaves idle samples out closes the
gaps, so that times within the profile are not those of a clock: for py-spy they are left null.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.formats.chrometrace import NO_FRAMES, PROCESS_FRAME, parse_id
from perfkit.importers import json_prefix, json_stream
from perfkit.importers.base import Format, Source
from perfkit.importers.rows import SampleRows, anchor, scaled
from perfkit.stacks import Frame

NAME = "speedscope"
FORMAT = Format(
    title="speedscope",
    made_by="`py-spy record -f speedscope`, `pyinstrument -r speedscope`, speedscope's own export",
    recognised_by="its `$schema`, or `shared` frames with `profiles`",
    gives="samples",
    lacks="wall-clock times (`--started-at`); py-spy's: all times; mostly process and thread",
    tried="pyinstrument 5.1.3, py-spy 0.4.3",
)

_UNITS = {"seconds": 10**9, "milliseconds": 10**6, "microseconds": 10**3, "nanoseconds": 1}
_THREAD = re.compile(r'[Tt]hread (0[xX][0-9a-fA-F]+|\d+)(?: "(.*)")?')
_MAX_DEPTH = 10_000


class _Frame(msgspec.Struct):
    name: str = ""
    file: str | None = None
    line: int | float | None = None


class _Event(msgspec.Struct):
    type: str = ""
    at: float = 0.0
    frame: int = -1


class _Profile(msgspec.Struct, rename="camel"):
    type: str = ""
    name: str | None = None
    unit: str = "none"
    start_value: float = 0.0
    end_value: float = 0.0
    samples: list[list[int]] | None = None
    weights: list[float] | None = None
    events: list[_Event] | None = None


class _Shared(msgspec.Struct):
    frames: list[_Frame] | None = None


class _File(msgspec.Struct):
    profiles: list[_Profile] | None = None
    shared: _Shared | None = None
    exporter: str | None = None


_PARTLY = {
    *((), ("profiles",), ("profiles", "*"), ("shared",), ("shared", "frames")),
    *(("profiles", "*", name) for name in ("samples", "weights", "events")),
}
_profile = msgspec.json.Decoder(_Profile)
_shared = msgspec.json.Decoder(_Shared)
_PROFILE = re.compile(rb'\{\s*"type"\s*:\s*"(?:sampled|evented)"')
_file = msgspec.json.Decoder(_File)
_PARTS = re.compile(rb'"(?:profiles|shared|exporter|activeProfileIndex)"\s*:')


def sniff(head: bytes, path: Path) -> bool:
    """Recognise the schema's address, or the outermost members."""
    del path
    return head.lstrip()[:1] == b"{" and (
        b"speedscope.app/file-format-schema" in head or len(set(_PARTS.findall(head))) >= 3
    )


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all profiles."""
    try:
        file = _file.decode(source.contents())
    except json_stream.BAD_JSON as error:
        problem = json_stream.refuse("a speedscope profile", str(source), error)
        found = _salvaged(source) if source.on_damage is not None else None
        if found is None:
            raise problem from error
        file = found
    frames = [_frame(frame) for frame in (file.shared or _Shared()).frames or ()]
    clocked = not (file.exporter or "").startswith("py-spy")
    profiles = [profile for profile in file.profiles or () if profile.unit in (*_UNITS, "none")]
    for profile in file.profiles or ():
        if profile.unit not in _UNITS:
            writer.lose("profile", 1, f"its values are {profile.unit[:20]}, not times")
    start_ns: int | None = None
    if clocked and any(profile.unit in _UNITS for profile in profiles):
        lengths = (p.end_value - p.start_value for p in profiles if p.unit in _UNITS)
        longest = max((scaled(length, _UNITS["seconds"]) or 0 for length in lengths), default=0)
        unit = next(_UNITS[p.unit] for p in profiles if p.unit in _UNITS)
        start_ns = anchor(source, writer, longest * unit // _UNITS["seconds"])
    elif not clocked:
        writer.note(f"{source.name} has no times of samples: they are in no time range or request")
    with SampleRows(source, writer) as rows:
        for profile in profiles:
            _Profiled(rows, writer, frames, profile, start_ns, str(source),
                      alone=len(profiles) == 1).read()  # fmt: skip


def _salvaged(source: Source) -> _File | None:
    """Return what is whole: also profiles after the damage, and frames, which may come last."""
    content = json_prefix.until_bad_text(source.contents())
    text, at, whole = json_prefix.beginning(content, lambda path: path in _PARTLY)
    file = json_prefix.decoded(text, _file)
    if whole or file is None:
        return None
    json_prefix.pass_over(source, at, len(content))
    profiles = file.profiles or []
    frames = file.shared.frames if file.shared is not None else None
    while (begin := _PROFILE.search(content, at)) is not None:
        one = json_prefix.beginning(
            content, lambda path: ("profiles", "*", *path) in _PARTLY, begin.start()
        )
        profile = json_prefix.decoded(one.text, _profile)
        profiles += [profile] if profile is not None else []
        at = max(begin.end(), one.end)
    for _, value in json_prefix.members(content, at, lambda path: path in _PARTLY, "shared"):
        shared = json_prefix.decoded(value.text, _shared)
        frames = frames or (shared.frames if shared is not None else None)
    for profile in profiles:
        _pair(profile)
    if profiles and not frames:
        raise source.error("its frames, which come last, are not there: nothing can be kept")
    return _File(profiles, _Shared(frames), file.exporter)


def _pair(profile: _Profile) -> None:
    """Leave out the samples that have no weight any more."""
    count = min(len(profile.samples or ()), len(profile.weights or ()))
    if profile.type == "sampled":
        profile.samples = (profile.samples or [])[:count]
        profile.weights = (profile.weights or [])[:count]


def _frame(frame: _Frame) -> Frame:
    line = int(frame.line) if frame.line is not None and 0 < frame.line < 2**31 else None
    return Frame(frame.name, frame.file if frame.file and frame.file != "<built-in>" else "", line)


class _Profiled:
    def __init__(
        self,
        rows: SampleRows,
        writer: CaptureWriter,
        frames: list[Frame],
        profile: _Profile,
        start_ns: int | None,
        where: str,
        *,
        alone: bool,
    ) -> None:
        self._rows, self._writer, self._frames = rows, writer, frames
        self._profile, self._start_ns, self._where = profile, start_ns, where
        self._factor = _UNITS.get(profile.unit)
        name = profile.name or ""
        thread, process = _THREAD.search(name), PROCESS_FRAME.search(name.lower())
        self._tid = parse_id(thread[1]) if thread else None
        self._thread_name = thread[2] if thread else None if alone else name or None
        self._pid = parse_id(process[1]) if process else None

    def read(self) -> None:
        """Add the samples of the profile."""
        if self._factor is None and self._profile.type != "sampled":
            return
        for stack, begin, length in (
            self._sampled() if self._profile.type == "sampled" else self._evented()
        ):
            stack_id = self._writer.stacks.intern(self._path(stack) or [NO_FRAMES])
            if self._factor is None:
                count = round(length) if 0 < length < 2**53 else 0
                self._add(stack_id, None, None, count)
                continue
            ts_ns = None
            if self._start_ns is not None:
                offset = scaled(begin - self._profile.start_value, self._factor)
                ts_ns = self._start_ns + offset if offset is not None else -1
            self._add(stack_id, ts_ns, scaled(length, self._factor) or 0, 1)

    def _path(self, stack: tuple[int, ...]) -> list[Frame]:
        # pyinstrument has frames for what a function did itself.
        return [frame for n in stack if (frame := self._frames[n]).function != "[self]"]

    def _add(self, stack_id: int, ts_ns: int | None, duration_ns: int | None, count: int) -> None:
        self._rows.add(stack_id, ts_ns=ts_ns, duration_ns=duration_ns, count=count, pid=self._pid,
                       tid=self._tid, thread_name=self._thread_name)  # fmt: skip

    def _sampled(self) -> Iterator[tuple[tuple[int, ...], float, float]]:
        samples, weights = self._profile.samples or [], self._profile.weights or []
        if len(samples) != len(weights):
            raise InputError(
                f"{len(samples)} samples with {len(weights)} weights", where=self._where
            )
        at = self._profile.start_value
        for stack, weight in zip(samples, weights, strict=True):
            yield tuple(self._known(n) for n in stack), at, weight
            at += weight

    def _evented(self) -> Iterator[tuple[tuple[int, ...], float, float]]:
        """Yield a stack for each stretch in which no frame opens or closes."""
        stack: list[int] = []
        last = self._profile.start_value
        for event in self._profile.events or ():
            if event.at < last:
                raise InputError("events that are not in order of time", where=self._where)
            if event.at > last and stack:
                yield tuple(stack), last, event.at - last
            last = event.at
            if event.type == "O":
                if len(stack) >= _MAX_DEPTH:
                    raise InputError("frames nested too deeply", where=self._where)
                stack.append(self._known(event.frame))
            elif stack and stack[-1] == event.frame:
                stack.pop()
            else:
                self._rows.reject("end of a frame that is not the innermost")

    def _known(self, number: int) -> int:
        if not 0 <= number < len(self._frames):
            raise InputError(f"no frame has the number {number}", where=self._where)
        return number
