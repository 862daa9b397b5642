"""Linux perf, as `perf script` prints it: a header line, frames from the leaf, a blank line.

Times are of the machine's monotonic clock. For the events `cpu-clock` and `task-clock` the period
is ns of CPU time and becomes the sample's length; other events are only counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.formats.chrometrace import NO_FRAMES, parse_id
from perfkit.importers.base import Format, Source
from perfkit.importers.rows import SampleRows, anchor
from perfkit.stacks import Frame

NAME = "perf-script"
FORMAT = Format(
    title="Linux perf, `perf script`",
    made_by="`perf record -g …; perf script > FILE`",
    recognised_by="lines of command, pid, time and event, with frames of addresses under them",
    gives="samples with times, process, thread and command",
    lacks="wall-clock times (`--started-at`); lengths, other than of clock events",
    tried="perf 6.1.187",
)

_HEADER = re.compile(
    r"(?P<comm>\S.*?)\s+(?P<pid>\d+)(?:/(?P<tid>\d+))?\s+(?:\[\d+\]\s+)?(?:[.\w]+\s+)?"
    r"(?P<time>\d+\.\d+):\s+(?:(?P<period>\d+)\s+)?(?P<event>[\w\-:/.,=*]+):\w*:?\s*.*"
)
_ADDRESS = re.compile(r"[0-9a-f]{1,16}")
_MAX_HEADER = 1000
_SNIFFED = re.compile(
    rb"^\S[^\n]{0,200}?\s+\d+(?:/\d+)?\s+(?:\[\d+\]\s+)?(?:[.\w]+\s+)?\d+\.\d{6,9}:\s+", re.M
)
_CLOCKS = ("cpu-clock", "task-clock")
_MAX_DEPTH = 10_000


class _Head(NamedTuple):
    comm: str
    pid: int | None
    tid: int | None
    time_ns: int
    period: int | None
    event: str


def sniff(head: bytes, path: Path) -> bool:
    """Recognise a header line, with a frame of an address after one of them."""
    del path
    return (
        _SNIFFED.search(head[:8192]) is not None
        and re.search(rb"^[ \t]+[0-9a-f]{1,16} \S", head[:16384], re.M) is not None
    )


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all samples."""
    first, last = _range(source)
    start_ns = anchor(source, writer, last - first)
    with SampleRows(source, writer) as rows:
        for head, frames in _samples(source):
            _add(rows, writer, head, frames, start_ns - first)


def _samples(source: Source) -> Iterator[tuple[_Head, list[Frame]]]:
    """Yield each sample; one with a damaged line is passed over whole."""
    head: _Head | None = None
    frames: list[Frame] = []
    for place, text in _lines(source):
        if not text.strip() or not (text[0].isspace() or text.startswith("#")):
            if head is not None:
                yield head, frames
            head, frames = None, []
        try:
            if not text.strip() or text.startswith("#"):
                continue
            if not text[0].isspace():
                head = _header(text, place)
            elif head is not None:
                frames.append(_frame(text.strip(), place))
                if len(frames) > _MAX_DEPTH:
                    raise InputError("more frames than a stack has", where=place)
        except InputError as error:
            source.pass_over(error)
            head, frames = None, []
    if head is not None:
        yield head, frames


def _lines(source: Source) -> Iterator[tuple[str, str]]:
    """Yield (place, line), blank lines too: they end a sample."""
    number = 0
    for found, line in source.lines():
        if found > number + 1:
            yield "", ""
        number = found
        yield f"{source}, line {number}", line.decode("utf-8", "replace")


def _range(source: Source) -> tuple[int, int]:
    """Return the first and the last time in the file."""
    times: list[int] = []
    for place, text in _lines(source):
        if text.strip() and not text[0].isspace() and not text.startswith("#"):
            try:
                times.append(_header(text, place).time_ns)
            except InputError:
                if source.on_damage is None:
                    raise
    if not times:
        raise source.error("no sample of perf script in it")
    return min(times), max(times)


def _header(text: str, place: str) -> _Head:
    match = _HEADER.fullmatch(text.rstrip()) if len(text) < _MAX_HEADER else None
    if match is None or len(match["time"]) > 24:
        raise InputError("no header of a sample of perf script", where=place)
    seconds, _, fraction = match["time"].partition(".")
    time_ns = int(seconds) * 10**9 + int(fraction.ljust(9, "0")[:9])
    # Of `pid/tid` both are known; alone it is the thread.
    pid = parse_id(match["pid"]) if match["tid"] else None
    tid = parse_id(match["tid"] or match["pid"])
    period = int(match["period"]) if match["period"] and len(match["period"]) < 19 else None
    return _Head(match["comm"], pid, tid, time_ns, period, match["event"])


def _frame(text: str, place: str) -> Frame:
    """Read `address symbol+0xoffset (library)`. Raises InputError when it is none."""
    address, _, rest = text.partition(" ")
    if _ADDRESS.fullmatch(address) is None:
        raise InputError("no frame of perf script", where=place)
    symbol, opened, library = rest.strip().rpartition(" (")
    if not opened or not library.endswith(")"):
        symbol, library = rest.strip(), ""
    name = symbol.rpartition("+0x")[0] or symbol
    file = library.removesuffix(")")
    return Frame(name or "[unknown]", "" if file == "[unknown]" else file)


def _add(
    rows: SampleRows,
    writer: CaptureWriter,
    head: _Head,
    frames: list[Frame],
    offset_ns: int,
) -> None:
    stack_id = writer.stacks.intern(frames[::-1] or [NO_FRAMES])
    clocked = head.event.partition(":")[0] in _CLOCKS
    rows.add(
        stack_id,
        ts_ns=head.time_ns + offset_ns,
        duration_ns=head.period if clocked else None,
        pid=head.pid,
        tid=head.tid,
        thread_name=head.comm,
        state="running",
    )
