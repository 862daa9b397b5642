"""V8's `.cpuprofile`: `node --cpu-prof`, Chrome's developer tools.

`timeDeltas[i]` is the time from the sample before to sample `i`: the stack of a sample is taken to
last until the next one. Times are of a monotonic clock, in µs.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.importers import json_prefix, json_stream
from perfkit.importers.base import Format, Source
from perfkit.importers.rows import SampleRows, anchor, scaled
from perfkit.stacks import Frame

NAME = "cpuprofile"
FORMAT = Format(
    title="V8 CPU profile (`.cpuprofile`)",
    made_by="`node --cpu-prof`, Chrome's developer tools",
    recognised_by="`nodes` with `callFrame`, and `timeDeltas` or `samples`",
    gives="samples with times",
    lacks="wall-clock times (`--started-at`), process and thread",
    tried="Node 20.20.2",
)

_US = 1000
_META = ("(root)", "(program)", "(idle)", "(garbage collector)")


class CallFrame(msgspec.Struct, rename="camel"):
    """A function as V8 describes it; its line counts from 0."""

    function_name: str = ""
    url: str = ""
    line_number: int = -1


class _Node(msgspec.Struct, rename="camel"):
    id: int
    call_frame: CallFrame
    children: list[int] | None = None
    parent: int | None = None


class _File(msgspec.Struct, rename="camel"):
    nodes: list[_Node]
    start_time: float
    end_time: float
    samples: list[int] | None = None
    time_deltas: list[float] | None = None


class _Part(msgspec.Struct, rename="camel"):
    """A file of which something is not there."""

    nodes: list[_Node] | None = None
    start_time: float | None = None
    end_time: float | None = None
    samples: list[int] | None = None
    time_deltas: list[float] | None = None


_file = msgspec.json.Decoder(_File)
_part = msgspec.json.Decoder(_Part)
_PARTLY = {(), ("nodes",), ("samples",), ("timeDeltas",)}
_AFTER = ("startTime", "endTime", "samples", "timeDeltas")


def sniff(head: bytes, path: Path) -> bool:
    """Recognise nodes with call frames."""
    del path
    return (
        head.lstrip()[:1] == b"{"
        and b'"nodes"' in head
        and b'"callFrame"' in head
        and b'"functionName"' in head
        and b'"selfSize"' not in head  # a heap profile
    )


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all samples."""
    try:
        file = _file.decode(source.contents())
    except json_stream.BAD_JSON as error:
        problem = json_stream.refuse("a V8 profile", str(source), error)
        found = _salvaged(source) if source.on_damage is not None else None
        if found is None:
            raise problem from error
        file = found
    samples, deltas = file.samples or [], file.time_deltas or []
    if len(samples) != len(deltas):
        raise source.error(f"{len(samples)} samples with {len(deltas)} times between them")
    length_ns = scaled(file.end_time - file.start_time, _US)
    if length_ns is None or not 0 <= length_ns < 10**18:
        raise source.error("start and end are no plausible times")
    start_ns = anchor(source, writer, length_ns)
    stacks = _stacks(source, writer, file)
    at = 0.0
    with SampleRows(source, writer) as rows:
        for number, (node, delta) in enumerate(zip(samples, deltas, strict=True)):
            at += delta
            following = deltas[number + 1] if number + 1 < len(deltas) else 0.0
            if number + 1 == len(deltas):
                following = file.end_time - file.start_time - at
            known = stacks.get(node)
            if known is None:
                rows.reject("sample of a node that is not there")
                continue
            stack_id, name = known
            offset_ns, duration_ns = scaled(at, _US), scaled(following, _US)
            if offset_ns is None or duration_ns is None:
                rows.reject("sample without a plausible time")
                continue
            rows.add(
                stack_id,
                ts_ns=start_ns + offset_ns,
                duration_ns=max(0, duration_ns),
                state="idle" if name == "(idle)" else "running",
            )


def _salvaged(source: Source) -> _File | None:
    """Return what is whole. Samples without the times between them are left out."""
    content = json_prefix.until_bad_text(source.contents())
    text, at, whole = json_prefix.beginning(content, lambda path: path in _PARTLY)
    part = json_prefix.decoded(text, _part)
    if whole or part is None or not part.nodes:
        return None
    json_prefix.pass_over(source, at, len(content))
    for name, value in json_prefix.members(content, at, lambda path: path in _PARTLY, *_AFTER):
        other = json_prefix.decoded(b'{"%b":%b}' % (name.encode(), value.text), _part)
        for field in ("start_time", "end_time", "samples", "time_deltas") if other else ():
            if getattr(part, field) is None:
                setattr(part, field, getattr(other, field))
    samples, deltas = part.samples or [], part.time_deltas or []
    count = min(len(samples), len(deltas))
    if not count:
        raise source.error(
            "the times of its samples, which come last, are not there: nothing can be kept"
        )
    start, end = part.start_time, part.end_time
    if start is None or end is None:
        start, end = 0.0, sum(deltas)
    ended = end if count == max(len(samples), len(deltas)) else start + sum(deltas[:count])
    return _File(part.nodes, start, ended, samples[:count], deltas[:count])


def _stacks(source: Source, writer: CaptureWriter, file: _File) -> dict[int, tuple[int, str]]:
    """Return node -> (stack, function)."""
    nodes = {node.id: node for node in file.nodes}
    parents = {child: node.id for node in file.nodes for child in node.children or ()}
    for node in file.nodes:
        if node.parent is not None:
            parents.setdefault(node.id, node.parent)
    found: dict[int, tuple[int, str, int]] = {}
    for node in file.nodes:
        path: list[_Node] = []
        at: int | None = node.id
        while at is not None and at not in found:
            if at not in nodes or len(path) > len(nodes):
                raise InputError(f"no tree of calls around node {node.id}", where=str(source))
            path.append(nodes[at])
            at = parents.get(at)
        for one in reversed(path):
            above = found.get(parents.get(one.id, -1))
            name = one.call_frame.function_name
            # The root stands above all: only its own samples are its.
            parent_id, depth = (above[0], above[2]) if above and above[1] != "(root)" else (None, 0)
            stack_id = writer.stacks.child(parent_id, frame(one.call_frame), depth)
            found[one.id] = (stack_id, name, depth + 1)
    return {node: (stack_id, name) for node, (stack_id, name, _) in found.items()}


def frame(call: CallFrame) -> Frame:
    """Return the frame of a function."""
    name = call.function_name or "(anonymous)"
    file = call.url.removeprefix("file://")
    if name in _META or not file:
        return Frame(name)
    return Frame(name, file, call.line_number + 1 if 0 <= call.line_number < 2**31 - 1 else None)
