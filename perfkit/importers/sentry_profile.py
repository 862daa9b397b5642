"""Sentry's profiles: the sample format, of transactions (version 1) and in chunks (version 2).

https://develop.sentry.dev/sdk/telemetry/profiles/. A stack lists its frames from the innermost out,
and lasts until the next sample of its thread.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from perfkit.capture import CaptureWriter
from perfkit.formats import times
from perfkit.formats.chrometrace import NO_FRAMES, parse_id
from perfkit.importers import json_prefix, json_stream
from perfkit.importers.base import Source
from perfkit.importers.rows import SampleRows, scaled
from perfkit.stacks import Frame

Number = int | float | str | None


class _Frame(msgspec.Struct):
    function: str | None = None
    abs_path: str | None = None
    filename: str | None = None
    module: str | None = None
    lineno: int | None = None
    instruction_addr: str | None = None


class _Sample(msgspec.Struct):
    stack_id: int
    thread_id: str | int | None = None
    elapsed_since_start_ns: Number = None
    timestamp: Number = None


class _Thread(msgspec.Struct):
    name: str | None = None


class _Stacks(msgspec.Struct):
    frames: list[_Frame]
    stacks: list[list[int]]
    samples: list[_Sample]
    thread_metadata: dict[str, _Thread] | None = None


class _Profile(msgspec.Struct):
    profile: _Stacks
    timestamp: Number = None
    cut: bool = msgspec.field(default=False, name=json_prefix.CUT)


_profile = msgspec.json.Decoder(_Profile)
_THREAD_ID = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]+")
_KEYS = (b'"profile"', b'"frames"', b'"stacks"', b'"samples"')


def is_profile(line: bytes) -> bool:
    """Whether the content of an item is a profile."""
    return all(key in line for key in _KEYS) and b'"start_timestamp"' not in line


def read(source: Source, writer: CaptureWriter, place: str, line: bytes) -> None:
    """Read the samples of one item."""
    found = json_stream.decode(source, _profile, line, "a Sentry profile", place, _may_be_partial)
    if found is None:
        return
    profile = found.profile
    paths = [_path(stack, profile.frames) for stack in profile.stacks]
    ids = [None if path is None else writer.stacks.intern(path or [NO_FRAMES]) for path in paths]
    start_ns = times.from_text(found.timestamp) if isinstance(found.timestamp, str) else None
    # It comes last: what is cut off before it has lengths only.
    timeless = found.cut and start_ns is None
    names = {key: thread.name for key, thread in (profile.thread_metadata or {}).items()}
    with SampleRows(source, writer) as rows:
        for sample, ts_ns, duration_ns in _timed(profile.samples, 0 if timeless else start_ns):
            known = ids[sample.stack_id] if 0 <= sample.stack_id < len(ids) else None
            if known is None or ts_ns is None:
                rows.reject("sample without a known stack or a plausible time")
                continue
            thread = str(sample.thread_id)
            tid = parse_id(thread) if _THREAD_ID.fullmatch(thread) else None
            timed = sample.timestamp is not None or not timeless
            rows.add(known, ts_ns=ts_ns if timed else None, duration_ns=duration_ns, tid=tid,
                     thread_name=names.get(thread))  # fmt: skip


def _may_be_partial(path: json_prefix.Path) -> bool:
    return path in ((), ("profile",), ("profile", "samples"))


def _path(stack: list[int], frames: list[_Frame]) -> list[Frame] | None:
    """Return the frames from the outermost in; null when one of them is not there."""
    if any(not 0 <= number < len(frames) for number in stack):
        return None
    return [_frame(frames[number]) for number in reversed(stack)]


def _frame(frame: _Frame) -> Frame:
    line = frame.lineno if frame.lineno and 0 < frame.lineno < 2**31 else None
    name = frame.function or frame.instruction_addr or "(unknown)"
    return Frame(name, frame.abs_path or frame.filename or frame.module or "", line)


def _timed(
    samples: list[_Sample], start_ns: int | None
) -> list[tuple[_Sample, int | None, int | None]]:
    """Return each sample with its time and its length, which of a thread's last is not known."""
    found: list[tuple[_Sample, int | None, int | None]] = []
    last: dict[Any, tuple[int, int]] = {}  # thread -> time of its last sample, and its place
    order = [(sample, _time(sample, start_ns)) for sample in samples]
    for sample, ts_ns in sorted(order, key=lambda pair: pair[1] or 0):
        if ts_ns is not None:
            if (before := last.get(sample.thread_id)) is not None:
                earlier, _, _ = found[before[1]]
                found[before[1]] = (earlier, before[0], ts_ns - before[0])
            last[sample.thread_id] = (ts_ns, len(found))
        found.append((sample, ts_ns, None))
    return found


def _time(sample: _Sample, start_ns: int | None) -> int | None:
    if sample.timestamp is not None:
        # A float of seconds says no more than µs.
        us = scaled(sample.timestamp, 10**6)
        return us * 1000 if us is not None and 0 <= us < 2**53 else None
    offset_ns = scaled(sample.elapsed_since_start_ns, 1)
    return None if start_ns is None or offset_ns is None else start_ns + offset_ns
