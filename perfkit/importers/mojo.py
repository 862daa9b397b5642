"""Austin's binary form MOJO: one byte says what follows; numbers are of variable length.

https://github.com/P403n1x87/austin/wiki/The-MOJO-file-format
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from perfkit.importers.base import Source
from perfkit.importers.rows import an_id
from perfkit.stacks import Frame

(_METADATA, _STACK, _FRAME, _FRAME_INVALID, _FRAME_REF, _FRAME_KERNEL, _GC, _IDLE, _TIME, _MEMORY,
 _STRING, _STRING_REF) = range(1, 13)  # fmt: skip
_MAX_STRING_BYTES = 1 << 16
_MAX_DEPTH = 10_000
_WITH_COLUMNS, _WITH_INTERPRETERS = 2, 3
"""Versions from which on a frame says its columns, and a stack its interpreter."""

Sample = tuple[int | None, int | None, list[Frame], int, bool | None]
"""Process, thread, frames from the root, µs, and whether it was idle, if known."""


@dataclass
class _Stack:
    pid: int | None = None
    tid: int | None = None
    frames: list[Frame] = field(default_factory=list)
    idle: bool | None = None  # only said in the full mode, of idle ones


class Mojo:
    """Reads one file."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._data = source.contents()
        self._at = 3
        self._version = self._number()
        self._strings: dict[int, str] = {1: "<unknown>"}
        self._frames: dict[int, Frame] = {}

    def samples(self) -> Iterator[Sample]:
        """Yield every sample. Raises InputError where the file is damaged."""
        stack = _Stack()
        while self._at < len(self._data):
            start = self._at
            kind = self._data[self._at]
            self._at += 1
            if kind == _METADATA:
                key, value = self._string(), self._string()
                if key == "mode" and value == "memory":
                    raise self._source.error("Austin's memory mode, which has no times")
            elif kind == _STACK:
                stack = self._stack()
            elif kind == _TIME:
                yield stack.pid, stack.tid, stack.frames, self._number(), stack.idle
            elif kind == _IDLE:
                stack.idle = True
            elif kind == _MEMORY:
                self._number()
            elif not self._is_frame(kind, stack):
                raise self._source.error(f"no event of MOJO ({kind})", offset=start)

    def _stack(self) -> _Stack:
        pid = self._number()
        if self._version >= _WITH_INTERPRETERS:
            self._number()
        text = self._string()
        tid = None
        with contextlib.suppress(ValueError):
            tid = int(text.rpartition(":")[2], 16) if len(text) < 40 else None
        return _Stack(an_id(pid), an_id(tid))

    def _is_frame(self, kind: int, stack: _Stack) -> bool:
        """Take an event about frames or strings; false when it is none."""
        if kind == _STRING:
            key = self._number()
            self._strings[key] = self._string()
            return True
        if kind == _STRING_REF:
            self._number()
            return True
        if kind == _FRAME:
            key = self._number()
            self._frames[key] = self._described()
            return True  # only described: a reference to it follows
        if kind == _FRAME_REF:
            stack.frames.append(self._frames.get(self._number(), Frame("(unknown)")))
        elif kind == _FRAME_INVALID:
            stack.frames.append(Frame("(invalid)"))
        elif kind == _FRAME_KERNEL:
            stack.frames.append(Frame(self._string()))
        elif kind == _GC:
            stack.frames.append(Frame("GC"))
        else:
            return False
        if len(stack.frames) > _MAX_DEPTH:
            raise self._source.error("frames nested too deeply", offset=self._at)
        return True

    def _described(self) -> Frame:
        file = self._strings.get(self._number(), "")
        function = self._strings.get(self._number(), "")
        line = self._number()
        if self._version >= _WITH_COLUMNS:
            for _ in range(3):
                self._number()
        return Frame(function, file, line if 0 < line < 2**31 else None)

    def _number(self) -> int:
        """Read a number: 6 bits and a sign in the first byte, 7 in each that follows."""
        start = self._at
        value = shift = 0
        negative = False
        while True:
            if self._at >= len(self._data) or shift > 62:
                raise self._source.error("cut off, or damaged", offset=start)
            byte = self._data[self._at]
            self._at += 1
            if shift == 0:
                negative = bool(byte & 0x40)
                value, shift = byte & 0x3F, 6
            else:
                value |= (byte & 0x7F) << shift
                shift += 7
            if not byte & 0x80:
                return -value if negative else value

    def _string(self) -> str:
        end = self._data.find(b"\0", self._at, self._at + _MAX_STRING_BYTES)
        if end < 0:
            raise self._source.error("cut off in a text, or damaged", offset=self._at)
        text = bytes(self._data[self._at : end]).decode("utf-8", "replace")
        self._at = end + 1
        return text
