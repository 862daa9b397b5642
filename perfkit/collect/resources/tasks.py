"""Measures the threads of a process: context switches, and waiting for a core."""

from __future__ import annotations

from typing import NamedTuple

from perfkit.collect import processes
from perfkit.collect.resources import procfs
from perfkit.collect.resources.rows import Rows, counter

_TYPE = "process.context_switch.type"

SWITCHES = counter(
    "process.context_switches",
    "{context_switch}",
    "how often its threads gave a core up by themselves (`voluntary`: to wait) or were made to "
    "(`involuntary`: another had its turn)",
    _TYPE,
    source="/proc/PID/task/TID/status",
)
WAITED = counter(
    "process.linux.run_queue.time",
    "s",
    "time in which its threads could have run but waited for a core, added up",
    source="/proc/PID/task/TID/schedstat",
)
METRICS = (SWITCHES, WAITED)


class _Counts(NamedTuple):
    voluntary: int
    involuntary: int
    waited_ns: int | None


class Tasks:
    """Adds up what the kernel counts for each thread."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._last: dict[int, _Counts] = {}
        self._sums = {"voluntary": 0, "involuntary": 0}
        self._waited_ns: int | None = None

    def measure(self, rows: Rows) -> None:
        """Add the rows of all threads together."""
        current = {}
        for tid in processes.threads(self._pid):
            if counts := self._read(tid):
                current[tid] = counts
                self._grow(self._last.get(tid, _Counts(0, 0, 0)), counts)
        self._last = current
        if not current:
            return
        for kind, count in self._sums.items():
            rows.add(SWITCHES, count, (_TYPE, kind))
        if self._waited_ns is not None:
            rows.add(WAITED, self._waited_ns / 1e9)

    def _grow(self, before: _Counts, now: _Counts) -> None:
        # A thread that ended takes its counts with it: so only growth is summed.
        self._sums["voluntary"] += max(now.voluntary - before.voluntary, 0)
        self._sums["involuntary"] += max(now.involuntary - before.involuntary, 0)
        if now.waited_ns is not None:
            grown = max(now.waited_ns - (before.waited_ns or 0), 0)
            self._waited_ns = (self._waited_ns or 0) + grown

    def _read(self, tid: int) -> _Counts | None:
        folder = f"/proc/{self._pid}/task/{tid}"
        status = procfs.key_values(procfs.read(f"{folder}/status"))
        voluntary = status.get("voluntary_ctxt_switches")
        involuntary = status.get("nonvoluntary_ctxt_switches")
        if voluntary is None or involuntary is None:
            return None
        fields = procfs.read(f"{folder}/schedstat").split()
        waited = procfs.number(fields[1]) if len(fields) == 3 else None
        return _Counts(voluntary, involuntary, waited)
