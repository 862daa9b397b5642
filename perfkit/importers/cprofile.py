"""cProfile's `.prof` files, and those of the sampling profiler of Python 3.15 (`--pstats`).

The file is written with `marshal`, whose own reader must not see hostile input. The few types that
such a file has are read here instead; anything else is refused.

cProfile knows functions, and who called whom; not stacks. So a row is a function's own time under
one caller, as a stack of the two.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.importers.base import Format, Source
from perfkit.importers.rows import SampleRows, scaled
from perfkit.stacks import Frame

NAME = "cprofile"
FORMAT = Format(
    title="cProfile (`.prof`), pstats",
    made_by="`python -m cProfile -o FILE …`, `profiling.sampling run --pstats` (3.15)",
    recognised_by="a marshalled dictionary of functions",
    gives="samples: own time of a function under each caller",
    lacks="whole stacks (a function and its caller only), times of samples, threads",
    tried="CPython 3.11.7",
)

_S = 10**9
_FLAG_REF = 0x80
_MAX_DEPTH = 20
_Function = tuple[str, int, str]


def sniff(head: bytes, path: Path) -> bool:
    """Recognise a dictionary whose first key is a tuple of three: file, line, function."""
    del path
    if len(head) < 8 or head[0] & ~_FLAG_REF != ord("{"):
        return False
    first, count = head[1] & ~_FLAG_REF, head[2]
    return first == ord(")") and count in (1, 3) and chr(head[3] & ~_FLAG_REF) in "zZaAut"


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all functions."""
    stats = _Marshal(source).value(0)
    if not isinstance(stats, dict):
        raise source.error("not the statistics of cProfile", offset=0)
    with SampleRows(source, writer) as rows:
        for key, entry in stats.items():
            if key == ("__sampled__",):
                continue
            function = _function(key)
            if function is None or not isinstance(entry, tuple) or len(entry) != 5:
                rows.reject("entry that is no function of cProfile")
                continue
            _add(rows, writer, function, entry)
    sampled = ("__sampled__",) in stats
    how = "of samples" if sampled else "of a tracing profiler, which slows small functions most"
    writer.note(
        f"{source.name} is {how}; it says who called whom, not whole stacks, and no times: it "
        "is in no time range and in no request"
    )


def _function(key: Any) -> _Function | None:
    if isinstance(key, tuple) and len(key) == 3:
        file, line, name = key
        if isinstance(file, str) and isinstance(line, int) and isinstance(name, str):
            return file, line, name
    return None


def _add(rows: SampleRows, writer: CaptureWriter, own: _Function, entry: tuple[Any, ...]) -> None:
    self_s, callers = entry[2], entry[4]
    rest = self_s if isinstance(self_s, (int, float)) else 0.0
    for key, caller in callers.items() if isinstance(callers, dict) else ():
        above = _function(key)
        # (calls, primitive calls, own time, cumulative time) under this caller; of an old
        # profiler only the number of calls.
        if above is None or not isinstance(caller, tuple) or len(caller) != 4:
            continue
        share = caller[2]
        if isinstance(share, (int, float)) and share > 0:
            _row(rows, writer, [above, own], share)
            rest -= share
    if rest > 1e-9:
        _row(rows, writer, [own], rest)


def _row(rows: SampleRows, writer: CaptureWriter, path: list[_Function], seconds: float) -> None:
    duration_ns = scaled(seconds, _S)
    if duration_ns is None:
        rows.reject("sample with an implausible duration")
        return
    rows.add(writer.stacks.intern([_frame(one) for one in path]), duration_ns=duration_ns)


def _frame(function: _Function) -> Frame:
    file, line, name = function
    # Built-in functions have the file `~`.
    return Frame(name, "" if file == "~" else file, line if 0 < line < 2**31 else None)


class _Marshal:
    """Reads None, numbers, text, tuples and dictionaries; see Python's marshal.c."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._data: bytes | mmap.mmap = source.contents()
        self._at = 0
        self._refs: list[Any] = []

    def value(self, depth: int) -> Any:
        """Read one value. Raises InputError naming the offset."""
        start = self._at
        if depth > _MAX_DEPTH:
            raise self._source.error("nested too deeply", offset=start)
        code = self._take(1)[0]
        kind, keep = chr(code & ~_FLAG_REF), code & _FLAG_REF
        if kind == "r":
            return self._ref(start)
        place = len(self._refs)
        if keep:
            self._refs.append(None)  # its number comes before those of its parts
        value = self._read(kind, depth, start)
        if keep:
            self._refs[place] = value
        return value

    def _read(self, kind: str, depth: int, start: int) -> Any:
        if kind in "N":
            return None
        if kind in "FT":
            return kind == "T"
        if kind == "i":
            return struct.unpack("<i", self._take(4))[0]
        if kind == "l":
            return self._long()
        if kind == "g":
            return struct.unpack("<d", self._take(8))[0]
        if kind in "uat":
            return self._take(self._size()).decode("utf-8" if kind != "a" else "latin-1", "replace")
        if kind == "A":
            return self._take(self._size()).decode("latin-1")
        if kind in "zZ":
            return self._take(self._take(1)[0]).decode("latin-1")
        if kind in "()":
            count = self._take(1)[0] if kind == ")" else self._size()
            return tuple(self.value(depth + 1) for _ in range(count))
        if kind == "{":
            return self._dict(depth)
        raise self._source.error(f"not written by cProfile (marshal type {kind!r})", offset=start)

    def _dict(self, depth: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        while True:
            if self._at < len(self._data) and self._data[self._at] == ord("0"):
                self._at += 1
                return found
            try:
                key, value = self._entry(depth)
            except InputError as error:
                # What follows cannot be told apart: the entries say no length.
                if depth or not found:
                    raise
                self._source.pass_over(error)
                return found
            found[key] = value

    def _entry(self, depth: int) -> tuple[Any, Any]:
        key = self.value(depth + 1)
        # Tuples of references to tuples of references … would be hashed for ever.
        parts = key if isinstance(key, tuple) else (key,)
        if any(isinstance(part, (tuple, dict)) for part in parts):
            raise self._source.error("damaged: no key", offset=self._at)
        return key, self.value(depth + 1)

    def _ref(self, start: int) -> Any:
        number = self._size()
        if number >= len(self._refs) or self._refs[number] is None:
            raise self._source.error("damaged: a reference to nothing", offset=start)
        return self._refs[number]

    def _long(self) -> int:
        digits = struct.unpack("<i", self._take(4))[0]
        if abs(digits) > 8:
            raise self._source.error("a number beyond all measure", offset=self._at)
        value = 0
        for place in range(abs(digits)):
            value |= struct.unpack("<H", self._take(2))[0] << (15 * place)
        return -value if digits < 0 else value

    def _size(self) -> int:
        size: int = struct.unpack("<I", self._take(4))[0]
        if size > len(self._data):
            raise self._source.error("cut off, or damaged", offset=self._at)
        return size

    def _take(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise self._source.error("cut off", offset=self._at)
        taken = bytes(self._data[self._at : self._at + count])
        self._at += count
        return taken
