"""V8's profiles within Chrome's traces: `Profile`, and its `ProfileChunk`s, as samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from perfkit.capture import CaptureWriter
from perfkit.importers.base import Source
from perfkit.importers.cpuprofile import CallFrame, frame
from perfkit.importers.rows import SampleRows, an_id, scaled

_US = 1000


class _Node(msgspec.Struct, rename="camel"):
    id: int
    call_frame: CallFrame
    parent: int | None = None


class _Profile(msgspec.Struct, rename="camel"):
    nodes: list[_Node] = []
    samples: list[int] = []


class _Chunk(msgspec.Struct, rename="camel"):
    cpu_profile: _Profile = msgspec.field(default_factory=_Profile)
    time_deltas: list[float] = []
    start_time: float | None = None
    end_time: float | None = None


@dataclass
class _Thread:
    tid: Any = None
    start_us: float | None = None
    end_us: float | None = None
    nodes: list[_Node] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    deltas: list[float] = field(default_factory=list)


@dataclass
class Profiles:
    """The profiles of a trace, one a thread, gathered from their events."""

    threads: dict[tuple[Any, Any], _Thread] = field(default_factory=dict)

    def take(self, pid: Any, tid: Any, own_id: Any, name: str, args: Any) -> str | None:
        """Take an event; returns why it is refused, if it is."""
        try:
            chunk = msgspec.convert((args or {}).get("data"), _Chunk)
        except (msgspec.ValidationError, AttributeError):
            return "part of a profile that cannot be read"
        if len(chunk.time_deltas) != len(chunk.cpu_profile.samples):
            return "part of a profile with other numbers of samples than of times"
        thread = self.threads.setdefault((pid, own_id), _Thread())
        if name == "Profile":
            thread.tid, thread.start_us = tid, chunk.start_time
        thread.end_us = chunk.end_time if chunk.end_time is not None else thread.end_us
        thread.nodes += chunk.cpu_profile.nodes
        thread.samples += chunk.cpu_profile.samples
        thread.deltas += chunk.time_deltas
        return None

    def write(
        self,
        source: Source,
        writer: CaptureWriter,
        offset_ns: int,
        names: dict[tuple[Any, Any], str],
    ) -> None:
        """Write all samples; a stack lasts until the next sample. `names` are those of threads."""
        with SampleRows(source, writer) as rows:
            for (pid, _), thread in self.threads.items():
                if thread.start_us is None:
                    for _ in thread.samples:
                        rows.reject("sample of a profile whose beginning is missing")
                    continue
                _write(rows, writer, thread, pid, offset_ns, names.get((pid, thread.tid)))


def _write(
    rows: SampleRows,
    writer: CaptureWriter,
    thread: _Thread,
    pid: Any,
    offset_ns: int,
    thread_name: str | None,
) -> None:
    stacks = _stacks(writer, thread.nodes)
    at = thread.start_us or 0.0
    # The last one lasts to the end, where it is known.
    following = [*thread.deltas[1:], None][: len(thread.deltas)]
    for node, delta, length in zip(thread.samples, thread.deltas, following, strict=True):
        at += delta
        if length is None and thread.end_us is not None:
            length = thread.end_us - at
        known, ts_ns = stacks.get(node), scaled(at, _US)
        if known is None or ts_ns is None:
            rows.reject("sample of a node that is not there, or without a plausible time")
            continue
        duration_ns = scaled(max(0.0, length), _US) if length is not None else None
        stack_id, name, _ = known
        rows.add(stack_id, ts_ns=ts_ns + offset_ns, duration_ns=duration_ns, pid=an_id(pid),
                 tid=an_id(thread.tid), thread_name=thread_name,
                 state="idle" if name == "(idle)" else "running")  # fmt: skip


def _stacks(writer: CaptureWriter, nodes: list[_Node]) -> dict[int, tuple[int, str, int]]:
    """Return node -> (stack, function, depth below it). Parents come before their children."""
    found: dict[int, tuple[int, str, int]] = {}
    for node in nodes:
        above = found.get(node.parent) if node.parent is not None else None
        if node.parent is not None and above is None:
            continue  # its samples are refused
        name = node.call_frame.function_name
        # The root stands above all: only its own samples are its.
        parent_id, depth = (above[0], above[2]) if above and above[1] != "(root)" else (None, 0)
        stack_id = writer.stacks.child(parent_id, frame(node.call_frame), depth)
        found[node.id] = (stack_id, name, depth + 1)
    return found
