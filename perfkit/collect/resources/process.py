"""Measures one process."""

from __future__ import annotations

import os
import time

from perfkit.collect import processes
from perfkit.collect.resources import procfs
from perfkit.collect.resources.connections import Connections
from perfkit.collect.resources.rows import Allowance, Deltas, Rows, counter, gauge
from perfkit.collect.resources.tasks import Tasks

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STAT = "/proc/PID/stat"
# Descriptors, threads and sockets of a process may be many: each may take this part of a core.
_SHARE = 0.001

CPU = gauge(
    "process.cpu.utilization", "1", "cores in use: 1 is one core, not all of them", source=_STAT
)
CPU_TIME = counter("process.cpu.time", "s", "time on a core", "cpu.mode", source=_STAT)
MEMORY = gauge("process.memory.usage", "By", "resident memory", source=_STAT)
VIRTUAL = gauge("process.memory.virtual", "By", "address space", source=_STAT)
SWAPPED = gauge(
    "process.linux.memory.swap",
    "By",
    "memory of the process that is in swap",
    source="/proc/PID/status",
)
FAULTS = counter(
    "process.paging.faults",
    "{fault}",
    "page faults; `major` ones had to wait for a disk",
    "system.paging.fault.type",
    source=_STAT,
)
THREADS = gauge("process.thread.count", "{thread}", "threads", source=_STAT)
UPTIME = gauge("process.uptime", "s", "time since it began", source=_STAT)
DESCRIPTORS = gauge(
    "process.unix.file_descriptor.count",
    "{file_descriptor}",
    "open file descriptors",
    source="/proc/PID/fd",
)
DESCRIPTOR_LIMIT = gauge(
    "process.unix.file_descriptor.limit",
    "{file_descriptor}",
    "how many it may open (the soft limit)",
    source="/proc/PID/limits",
)
IO = counter(
    "process.disk.io",
    "By",
    "bytes that it made disks read and write",
    "disk.io.direction",
    source="/proc/PID/io",
)
METRICS = (
    *(CPU, CPU_TIME, MEMORY, VIRTUAL, SWAPPED, FAULTS, THREADS, UPTIME),
    *(DESCRIPTORS, DESCRIPTOR_LIMIT, IO),
)


class Gone(Exception):
    """The process has ended."""


class Process:
    """Measures one process; what another user's process hides from us is left out."""

    def __init__(self, pid: int) -> None:
        """Raises Gone when there is no such process."""
        self._instance = processes.instance(pid)
        self._folder = f"/proc/{pid}"
        self._started = self._stat().started_ticks
        self._deltas = Deltas()
        readings = (self._measure_descriptors, Tasks(pid).measure, Connections(pid).measure)
        self._costly = [(Allowance(_SHARE), reading) for reading in readings]

    def measure(self, rows: Rows) -> None:
        """Add the rows of this process. Raises Gone."""
        stat = self._stat()
        if stat.started_ticks != self._started:
            raise Gone  # the number is another process's now
        rows.instance = self._instance
        self._measure_stat(rows, stat)
        status = procfs.key_values(procfs.read(f"{self._folder}/status"))
        if "VmSwap" in status:
            rows.add(SWAPPED, status["VmSwap"])
        disk = procfs.key_values(procfs.read(f"{self._folder}/io"))
        for key, direction in (("read_bytes", "read"), ("write_bytes", "write")):
            if key in disk:
                rows.add(IO, disk[key], ("disk.io.direction", direction))
        for allowance, reading in self._costly:
            allowance.read(reading, rows)

    def _stat(self) -> procfs.ProcessStat:
        stat = procfs.process_stat(procfs.read(f"{self._folder}/stat"))
        # One that exits gives its memory back first; it would be the last of its readings.
        if stat is None or stat.state in "ZXx" or not stat.virtual_bytes:
            raise Gone
        return stat

    def _measure_stat(self, rows: Rows, stat: procfs.ProcessStat) -> None:
        used_s = (stat.user_ticks + stat.system_ticks) * _TICK_S
        if grown := self._deltas.since("cpu", rows.clock_s, used_s):
            rows.add(CPU, grown[1] / grown[0])
        rows.add(CPU_TIME, stat.user_ticks * _TICK_S, ("cpu.mode", "user"))
        rows.add(CPU_TIME, stat.system_ticks * _TICK_S, ("cpu.mode", "system"))
        rows.add(MEMORY, stat.resident_pages * _PAGE_BYTES)
        rows.add(VIRTUAL, stat.virtual_bytes)
        rows.add(FAULTS, stat.minor_faults, ("system.paging.fault.type", "minor"))
        rows.add(FAULTS, stat.major_faults, ("system.paging.fault.type", "major"))
        rows.add(THREADS, stat.threads)
        since_boot_s = time.clock_gettime(time.CLOCK_BOOTTIME)  # the clock of `starttime`
        rows.add(UPTIME, max(since_boot_s - stat.started_ticks * _TICK_S, 0.0))

    def _measure_descriptors(self, rows: Rows) -> None:
        try:
            rows.add(DESCRIPTORS, len(os.listdir(f"{self._folder}/fd")))
        except OSError:  # not ours
            return
        limit = procfs.soft_limit(procfs.read(f"{self._folder}/limits"), "Max open files")
        if limit is not None:
            rows.add(DESCRIPTOR_LIMIT, limit)
