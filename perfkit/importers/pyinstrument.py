"""pyinstrument: its session (`-r session`, `.pyisession`), and its JSON (`-r json`).

A session has every sample in order with its length. The JSON is a merged tree: how long each path
took in all, not when.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.formats.chrometrace import NO_FRAMES
from perfkit.importers import json_prefix, json_stream
from perfkit.importers.base import Format, Source
from perfkit.importers.rows import SampleRows, an_id, scaled
from perfkit.stacks import Frame

NAME = "pyinstrument"
FORMAT = Format(
    title="pyinstrument, session and JSON",
    made_by="`pyinstrument -r session -o FILE` (better: it has times), `pyinstrument -r json`",
    recognised_by="`frame_records`, or `root_frame` with `sample_count`",
    gives="samples, of a session with times",
    lacks="process; of the JSON: times of samples",
    tried="pyinstrument 5.1.3",
)

_S = 10**9
_MAX_DEPTH = 2000
# pyinstrument makes frames of its own for what a function did itself, and for threads.
_SELF, _THREAD_FILE = "[self]", "<thread>"


class _Frame(msgspec.Struct):
    function: str | None = None
    file_path: str | None = None
    line_no: int | None = None
    time: float | None = None
    children: list[_Frame] | None = None
    cut: bool = msgspec.field(default=False, name=json_prefix.CUT)


class _File(msgspec.Struct):
    start_time: float | None = None
    duration: float | None = None
    root_frame: _Frame | None = None
    frame_records: list[tuple[list[str], float]] | None = None


_file = msgspec.json.Decoder(_File)


def sniff(head: bytes, path: Path) -> bool:
    """Recognise a session or a tree."""
    del path
    return (
        head.lstrip()[:1] == b"{"
        and b'"sample_count"' in head
        and b'"start_time"' in head
        and (b'"root_frame"' in head or b'"start_call_stack"' in head)
    )


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all samples."""
    try:
        file = _file.decode(source.contents())
    except json_stream.BAD_JSON as error:
        problem = json_stream.refuse("of pyinstrument", str(source), error)
        found = _salvaged(source) if source.on_damage is not None else None
        if found is None:
            raise problem from error
        file = found
    with SampleRows(source, writer) as rows:
        if file.frame_records is not None:
            _session(rows, writer, file)
        elif file.root_frame is not None:
            for path, self_s in _paths(file.root_frame, str(source)):
                if self_s is None:
                    rows.reject("frame whose calls are not all there: its own time is not known")
                elif self_s > 0:
                    stack_id = writer.stacks.intern(path or [NO_FRAMES])
                    rows.add(stack_id, duration_ns=scaled(self_s, _S))
            writer.note(
                f"{source.name} is a merged tree without times: its samples are in no time range "
                "and in no request; `pyinstrument -r session` has them"
            )


def _salvaged(source: Source) -> _File | None:
    content = json_prefix.until_bad_text(source.contents())
    text, at, whole = json_prefix.beginning(content, _may_be_partial)
    file = json_prefix.decoded(text, _file)
    if whole or file is None:
        return None
    json_prefix.pass_over(source, at, len(content))
    return file


def _may_be_partial(path: tuple[str, ...]) -> bool:
    """Whether it is the document, the list of samples, or a frame or frames of the tree."""
    tree = path[:1] == ("root_frame",) and path[-1] in ("root_frame", "children", "*")
    return tree or path in ((), ("frame_records",))


def _session(rows: SampleRows, writer: CaptureWriter, file: _File) -> None:
    known: dict[tuple[str, ...], tuple[int, int | None, str | None]] = {}
    start_ns = scaled(file.start_time, _S) if file.start_time is not None else None
    at = 0.0
    for names, length in file.frame_records or ():
        key = tuple(names)
        found = known.get(key)
        if found is None:
            frames, tid, thread = _split(names)
            found = known[key] = (writer.stacks.intern(frames or [NO_FRAMES]), tid, thread)
        stack_id, tid, thread = found
        offset_ns = scaled(at, _S)
        ts_ns = start_ns + offset_ns if start_ns is not None and offset_ns is not None else None
        at += length
        rows.add(stack_id, ts_ns=ts_ns, duration_ns=scaled(length, _S) or 0, tid=tid,
                 thread_name=thread)  # fmt: skip


def _split(names: list[str]) -> tuple[list[Frame], int | None, str | None]:
    """Read `function NUL file NUL line`, with `\\x01` before attributes; `l` is the line in it."""
    frames: list[Frame] = []
    tid = thread = None
    for text in names[:_MAX_DEPTH]:
        parts, *attributes = text.split("\x01")
        function, file, line = (*parts.split("\x00"), "", "")[:3]
        if file == _THREAD_FILE:
            thread, tid = function, _int(line)
            continue
        current = next((_int(one[1:]) for one in attributes if one.startswith("l")), None)
        owner = next((one[1:] for one in attributes if one.startswith("c")), None)
        number = current or _int(line)
        name = f"{owner}.{function}" if owner else function
        known_file = "" if file == "<built-in>" else file
        frames.append(Frame(name, known_file, number if number and number < 2**31 else None))
    return frames, an_id(tid), thread


def _int(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _paths(root: _Frame, where: str) -> Iterator[tuple[tuple[Frame, ...], float | None]]:
    """Yield (path, seconds that it took itself; null for a frame that is cut off)."""
    todo: list[tuple[_Frame, tuple[Frame, ...]]] = [(root, ())]
    while todo:
        node, above = todo.pop()
        if len(above) > _MAX_DEPTH:
            raise InputError("frames nested too deeply", where=where)
        own = node.time or 0.0
        path = above
        if node.function != _SELF and node.file_path != _THREAD_FILE:
            file = "" if node.file_path in (None, "<built-in>") else node.file_path or ""
            line = node.line_no if node.line_no and 0 < node.line_no < 2**31 else None
            path = (*above, Frame(node.function or "", file, line))
        children = node.children or []
        yield path, None if node.cut else own - sum(child.time or 0.0 for child in children)
        todo += [(child, path) for child in reversed(children)]
