"""Collapsed stacks, one a line: `frame;frame;frame count`, the root first.

py-spy writes its frames as `function (file:line)`; its root frames that name processes and threads
become columns. The format has counts only, no times.
"""

from __future__ import annotations

import re

from perfkit.batch import Batch
from perfkit.formats.chrometrace import NO_FRAMES, THREAD_FRAME, parse_id
from perfkit.stacks import Frame, StackTable

COLUMNS = ("count", "pid", "tid", "thread_name", "stack_id")

_LINE = re.compile(r"(.*\S)\s+(\d{1,18})\s*")
# A command line may have semicolons in it: it ends where a quote is followed by one.
_PROCESS = re.compile(r'process (\d+):"(.*?)"(?:;|$)')
_FRAME = re.compile(r"(.+) \((.*?)(?::(\d+))?\)")


class Collapsed:
    """Parses lines and collects their rows."""

    def __init__(self, stacks: StackTable) -> None:
        self._stacks = stacks
        self._frames: dict[str, Frame] = {}
        self._rows: list[tuple[int, int | None, int | None, str | None, int]] = []

    def add(self, line: str) -> bool:
        """Take one line; false when it is none of this format."""
        match = _LINE.fullmatch(line)
        if match is None:
            return False
        stack, count = match[1], int(match[2])
        pid: int | None = None
        while process := _PROCESS.match(stack):
            pid, stack = parse_id(process[1]), stack[process.end() :]
        names = stack.split(";") if stack else []
        tid: int | None = None
        thread_name: str | None = None
        if names and (thread := THREAD_FRAME.fullmatch(names[0])):
            tid, thread_name = parse_id(thread[1]), thread[2]
            del names[0]
        frames = [self.frame(name) for name in names if name] or [NO_FRAMES]
        self._rows.append((count, pid, tid, thread_name, self._stacks.intern(frames)))
        return True

    def frame(self, text: str) -> Frame:
        """Read one frame, with its file and line where py-spy wrote them."""
        frame = self._frames.get(text)
        if frame is None:
            match = _FRAME.fullmatch(text)
            if match is None:
                frame = Frame(text)
            else:
                line = int(match[3]) if match[3] and len(match[3]) < 10 else 0
                frame = Frame(match[1], match[2], line or None)
            self._frames[text] = frame
        return frame

    def finish(self) -> Batch:
        """Return everything as columns, and begin anew."""
        batch = Batch()
        batch.add_rows("samples", COLUMNS, self._rows)
        self._rows = []
        return batch
