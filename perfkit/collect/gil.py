"""Sees which thread of a Python process holds the interpreter's lock (GIL), without pausing it.

py-spy can say it only in `dump`, which takes 30 ms of CPU for each look. Two reads of the program's
memory (/proc/PID/mem), 24 bytes in all, say the same in some microseconds; they need the permission
that py-spy needs. What they need besides is where to look, which differs between versions of
CPython; it is searched for once for each process:

The variable `_PyRuntime` holds, in CPython 3.11 and later, the state of the main interpreter and
its lock, `struct _gil_runtime_state` (Include/internal/pycore_gil.h): the switch interval in µs, a
pointer to the thread state of the last holder, and whether it is locked, one after the other. A
thread state has its pthread identity and, right after it, its OS thread id. So what is looked for
is a plausible interval, followed by a pointer to something that has the id of a living thread after
a pointer. It must be there once, and every look checks that the id is one of a living thread.

Sub-interpreters that have a lock of their own are not seen.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections import Counter
from collections.abc import Container

from perfkit.collect import elf, processes

_MAX_RUNTIME_BYTES = 1 << 20
_MAX_THREAD_STATE_BYTES = 512
_DEFAULT_INTERVAL_US = 5000
_WORD = 8
_LOCK = struct.Struct("<QI")
_ID = struct.Struct("<Q")
_MIN_POINTER, _MAX_POINTER = 1 << 16, 1 << 56
# sys.setswitchinterval takes seconds; nobody sets more than ten.
_MAX_INTERVAL_US = 10_000_000
_MAX_TRIES = 20


class Gil:
    """The lock of one process."""

    def __init__(
        self, pid: int, memory: int, address: int, id_offset: int, inherited: Container[int]
    ) -> None:
        """`memory` is an open /proc/PID/mem, `address` that of the pointer to the holder.

        `inherited` are thread ids that stand for the main thread: some versions of CPython leave
        the id of the thread that forked in the child.
        """
        self._pid = pid
        self._inherited = inherited
        self._memory = memory
        self._address = address
        self._id_offset = id_offset
        self.looks = 0
        self.held = 0
        """How many looks found it held, by whomever."""
        self.failed = 0
        """How many looks found a holder that is no thread: it ended meanwhile."""

    @classmethod
    def find(cls, pid: int) -> Gil | None:
        """Find the lock of a process; null when it is not found, or may not be looked at."""
        try:
            place = elf.locate(pid, b"_PyRuntime", "libpython")
            if place is None:
                return None
            memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
        except (OSError, ValueError, struct.error):
            return None
        inherited = frozenset(processes.threads(processes.parent(pid) or 0))
        try:
            found = _search(memory, place, inherited.union(processes.threads(pid)))
        except OSError:
            found = None
        if found is None:
            os.close(memory)
            return None
        return cls(pid, memory, *found, inherited)

    def holder(self, threads: Container[int]) -> int | None:
        """Return the thread that holds the lock, one of `threads`; null when nobody does.

        Raises OSError when the process is gone.
        """
        self.looks += 1
        pointer, locked = _LOCK.unpack(os.pread(self._memory, _LOCK.size, self._address))
        if locked != 1 or not pointer:
            return None
        self.held += 1
        try:
            tid: int = _ID.unpack(os.pread(self._memory, _WORD, pointer + self._id_offset))[0]
        except OSError:  # the thread ended between the two reads
            tid = 0
        if tid in threads:
            return tid
        if tid in self._inherited:
            return self._pid
        self.failed += 1
        return None

    @property
    def trusted(self) -> bool:
        """Whether what is read makes sense: nearly every holder is a living thread."""
        return self.failed <= 10 + self.held // 10

    def close(self) -> None:
        """Release the memory."""
        os.close(self._memory)


class GilWatch:
    """The locks of several processes."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._locks: dict[int, Gil] = {}
        self._tries: Counter[int] = Counter()
        self._seen: dict[int, Gil] = {}
        self._holders: Counter[tuple[int, int]] = Counter()

    @property
    def pids(self) -> list[int]:
        """The processes whose lock is known."""
        return list(self._locks)

    def find(self, pid: int) -> bool:
        """Find the lock of a process; whether it is now known and was not before.

        While an interpreter starts there is none yet, so this tries again for a while.
        """
        if not self._enabled or pid in self._locks or self._tries[pid] >= _MAX_TRIES:
            return False
        self._tries[pid] += 1
        lock = Gil.find(pid)
        if lock is not None:
            self._locks[pid] = self._seen[pid] = lock
        return lock is not None

    def holder(self, pid: int, threads: Container[int]) -> int | None:
        """Return who holds the lock of a process, if anybody does and it is known."""
        lock = self._locks.get(pid)
        if lock is None:
            return None
        try:
            tid = lock.holder(threads)
        except (OSError, struct.error):  # the process is gone
            self.forget(pid)
            return None
        if not lock.trusted:
            self._tries[pid] = _MAX_TRIES
            self.forget(pid)
            del self._seen[pid]
            return None
        if tid is not None:
            self._holders[pid, tid] += 1
        return tid

    def forget(self, pid: int) -> None:
        """Release the lock of a process."""
        lock = self._locks.pop(pid, None)
        if lock is not None:
            lock.close()

    def close(self) -> None:
        """Release all of them."""
        for pid in self.pids:
            self.forget(pid)

    def describe(self) -> list[dict[str, int | float | None]]:
        """Return, for each process, how often its lock was held, and who held it most."""
        rows: list[dict[str, int | float | None]] = []
        for pid, lock in self._seen.items():
            mine = {tid: n for (owner, tid), n in self._holders.items() if owner == pid}
            most = max(mine, key=lambda tid: mine[tid], default=None)
            looks = max(lock.looks, 1)
            rows.append(
                {
                    "pid": pid,
                    "looks": lock.looks,
                    "held_ratio": round(lock.held / looks, 4),
                    "most_held_by_thread": most,
                    "most_held_ratio": round(mine[most] / looks, 4) if most else 0.0,
                }
            )
        return rows


def _search(memory: int, place: tuple[int, int], threads: frozenset[int]) -> tuple[int, int] | None:
    """Return the address of the pointer to the holder, and where a thread state has its id."""
    address, size = place
    words = _words(memory, address, min(size, _MAX_RUNTIME_BYTES))
    found = []
    for index in range(len(words) - 2):
        pointer = words[index + 1]
        if not (0 < words[index] <= _MAX_INTERVAL_US and _MIN_POINTER < pointer < _MAX_POINTER):
            continue
        if pointer % _WORD or words[index + 2] & 0xFFFFFFFF > 1:
            continue
        try:
            state = _words(memory, pointer, _MAX_THREAD_STATE_BYTES)
        except OSError:
            continue
        offset = _id_offset(state, threads)
        if offset is not None:
            at = address + (index + 1) * _WORD
            if words[index] == _DEFAULT_INTERVAL_US:
                return at, offset
            found.append((at, offset))
    return found[0] if len(found) == 1 else None


def _id_offset(state: array[int], threads: frozenset[int]) -> int | None:
    for index in range(1, len(state)):
        if state[index] in threads and state[index - 1] > _MIN_POINTER:
            return index * _WORD
    return None


def _words(memory: int, address: int, size: int) -> array[int]:
    words = array("Q")
    data = os.pread(memory, size, address)
    words.frombytes(data[: len(data) // _WORD * _WORD])
    return words
