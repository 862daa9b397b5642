"""Reads from py-spy's memory when its clock began: its traces count from there and do not say it.

It is the first thing that py-spy notes (`Chrometrace::new`), as Rust's `Instant`: the seconds of
the monotonic clock in 8 bytes, then the nanoseconds in 4. So it is the earliest moment since its
start that stands anywhere in its data. The stack is left out, where there is what was before.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator

_SECONDS, _NANOSECONDS = struct.Struct("=q"), struct.Struct("=I")
_SECOND_NS = 10**9
# Two small numbers beside each other are common, and soon after boot so are the seconds.
_LEAST_REST_NS = 1 << 16
# py-spy has 2 to 10 MB when it begins to sample.
_MAX_BYTES = 64 << 20


def began_ns(pid: int, since_ns: int, until_ns: int) -> int | None:
    """Return the monotonic time at which the clock of a py-spy began, in ns.

    It started after `since_ns` and sampled at `until_ns`. Null where its memory may not be read, or
    has no such moment.
    """
    try:
        found = [moment for data in _data(pid) for moment in _moments(data, since_ns, until_ns)]
    except (OSError, ValueError):  # it is gone, or not ours to read
        return None
    return min(found, default=None)


def _moments(data: bytes, since_ns: int, until_ns: int) -> Iterator[int]:
    """Yield the moments of a time that stand in memory."""
    for second in range(since_ns // _SECOND_NS, until_ns // _SECOND_NS + 1):
        word = _SECONDS.pack(second)
        place = data.find(word)
        while 0 <= place <= len(data) - 2 * _SECONDS.size:
            (rest_ns,) = _NANOSECONDS.unpack_from(data, place + _SECONDS.size)
            moment = second * _SECOND_NS + rest_ns
            plausible = place % _SECONDS.size == 0 and _LEAST_REST_NS <= rest_ns < _SECOND_NS
            if plausible and since_ns <= moment <= until_ns:
                yield moment
            place = data.find(word, place + 1)


def _data(pid: int) -> Iterator[bytes]:
    """Yield what a process has in memory of its own that is no file and not its first stack."""
    left = _MAX_BYTES
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            span, access, _, _, _, *name = line.split()
            begin, end = (int(part, 16) for part in span.split("-"))
            own = access.startswith("rw") and name in ([], ["[heap]"])
            if own and end - begin <= left:
                left -= end - begin
                with contextlib.suppress(OSError):  # given back meanwhile
                    memory.seek(begin)
                    yield memory.read(end - begin)
