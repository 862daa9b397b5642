"""Austin: its text (`P1;T0:2;file:function:line 1234`) and its binary form (MOJO).

A sample says for how many µs its stack was seen, in order, so the samples of one thread follow one
another. Modes: wall, cpu; a memory mode has no times and is refused.

MOJO: https://github.com/P403n1x87/austin/wiki/The-MOJO-file-format
"""

from __future__ import annotations

import re
from pathlib import Path

from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.formats.chrometrace import NO_FRAMES, parse_id
from perfkit.importers import json_stream
from perfkit.importers.base import Format, Source
from perfkit.importers.mojo import Mojo
from perfkit.importers.rows import SampleRows
from perfkit.stacks import Frame

NAME = "austin"
FORMAT = Format(
    title="Austin, text and MOJO",
    made_by="`austin -o FILE CMD…`, `austin -b …`",
    recognised_by="`# austin:` and lines of `P…;T…`; `MOJ`",
    gives="samples with lengths, process and thread",
    lacks="times of samples (kept null), thread names",
    tried="Austin 3.7.0 (4.0.0 needs a newer C library)",
)

_US = 1000
_LINE = re.compile(r"P(\d+);T(?:(\d+):)?(0x[0-9a-fA-F]+|\d+)((?:;.*)?) (-?\d+)(?:,(\d+),(-?\d+))?")
_MODE = re.compile(r"#\s*mode:\s*(\w+)")
_TEXT = re.compile(rb"(?:#[^\n]*\n|[ \t\r]*\n){0,50}P\d+;T[\w:]+(?:;[^\n]*)? -?\d")


def sniff(head: bytes, path: Path) -> bool:
    """Recognise its metadata or its process and thread."""
    del path
    if head.startswith(b"MOJ"):
        return True
    return head.startswith(b"# austin:") or _TEXT.match(head) is not None


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all samples."""
    with SampleRows(source, writer) as rows:
        if source.head().startswith(b"MOJ"):
            for pid, tid, frames, time_us, idle in Mojo(source).samples():
                _add(rows, writer, pid, tid, frames, time_us, idle=idle)
        else:
            _read_text(source, writer, rows)
    writer.note(
        f"{source.name} has lengths of samples without times: they are in no time range and in no "
        "request"
    )


def _add(
    rows: SampleRows,
    writer: CaptureWriter,
    pid: int | None,
    tid: int | None,
    frames: list[Frame],
    time_us: int,
    *,
    idle: bool | None,
) -> None:
    stack_id = writer.stacks.intern(frames or [NO_FRAMES])
    state = None if idle is None else "idle" if idle else "running"
    rows.add(stack_id, duration_ns=time_us * _US, pid=pid, tid=tid, state=state)


def _read_text(source: Source, writer: CaptureWriter, rows: SampleRows) -> None:
    known: dict[str, list[Frame]] = {}
    for place, line in json_stream.lines(source):
        text = line.decode("utf-8", "replace")
        if text.startswith("#"):
            mode = _MODE.match(text)
            if mode is not None and mode[1] == "memory":
                raise InputError("Austin's memory mode, which has no times", where=place)
            continue
        match = _LINE.fullmatch(text.strip())
        if match is None or len(match[5]) > 18:
            source.pass_over(
                InputError("no sample of Austin (`P1;T2;file:function:line 1234`)", where=place)
            )
            continue
        frames = known.get(match[4])
        if frames is None:
            # Markers such as `:GC:` stand between colons.
            frames = known[match[4]] = [_frame(one) for one in match[4].split(";") if one]
        idle = match[6] == "1" if match[6] else None
        _add(rows, writer, parse_id(match[1]), parse_id(match[3]), frames, int(match[5]), idle=idle)


def _frame(text: str) -> Frame:
    file, function, line = ["", "", "", *text.rsplit(":", 2)][-3:]
    if not function or not file:
        return Frame(text.strip(":") or text)
    number = int(line) if line.isascii() and line.isdigit() and len(line) < 10 else 0
    return Frame(function, file, number or None)
