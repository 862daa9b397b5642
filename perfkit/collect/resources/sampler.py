"""Measures in a thread of its own, once a second, and hands the rows to the journal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from perfkit.collect.resources.cgroup import Cgroup
from perfkit.collect.resources.host import Host
from perfkit.collect.resources.process import Gone, Process
from perfkit.collect.resources.rows import Rows

INTERVAL_S = 1.0
MAX_COST_RATIO = 0.005
"""Part of one core that measuring may take; with many processes the interval becomes longer."""
_MAX_PROCESSES = 64
# One reading that took long says nothing of the next.
_SMOOTHING = 8


class ResourceSampler:
    """Measures until it is stopped; each reading's rows go to `put` as one body."""

    def __init__(
        self, members: Callable[[], list[int]], root: int | None, put: Callable[[bytes], bool]
    ) -> None:
        """`members` returns the processes to measure, `root` is the one that was asked for.

        `put` returns false when the capture cannot be written any more: then measuring ends.
        """
        self._members = members
        self._put = put
        self._host = Host(root)
        self._cgroup = Cgroup(root) if root is not None else None
        self._processes: dict[int, Process] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="resources", daemon=True)
        self.max_interval_s = INTERVAL_S
        """The longest time between two readings."""
        self.unmeasured = 0
        """How many processes were beyond those that are measured, at most."""

    def start(self) -> None:
        """Begin to measure."""
        self._thread.start()

    def stop(self) -> None:
        """Measure once more and end."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        due, cost_s = time.monotonic(), 0.0
        while True:
            stopping = self._stop.wait(max(0.0, due - time.monotonic()))
            began = time.thread_time()
            goes_on = self._put(self.measure().encode())
            cost_s += (time.thread_time() - began - cost_s) / _SMOOTHING
            interval_s = max(INTERVAL_S, cost_s / MAX_COST_RATIO)
            if not goes_on or stopping:
                return
            self.max_interval_s = max(self.max_interval_s, interval_s)
            due = max(due + interval_s, time.monotonic())

    def measure(self) -> Rows:
        """Return one row for each series."""
        rows = Rows.now()
        self._host.measure(rows)
        members = self._members()
        self.unmeasured = max(self.unmeasured, len(members) - _MAX_PROCESSES)
        for pid in members[:_MAX_PROCESSES]:
            try:
                if pid not in self._processes:
                    self._processes[pid] = Process(pid)
                self._processes[pid].measure(rows)
            except Gone:
                self._processes.pop(pid, None)
        for pid in self._processes.keys() - set(members):
            del self._processes[pid]
        if self._cgroup is not None:
            self._cgroup.measure(rows)
        return rows
