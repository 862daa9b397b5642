"""Measures the machine: cores, run queue, memory and paging."""

from __future__ import annotations

import os
import platform

from perfkit.collect.resources import disk, network, pressure, procfs
from perfkit.collect.resources.rows import Rows, counter, gauge

_CORE = "cpu.logical_number"
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_STAT, _VMSTAT, _MEMINFO = "/proc/stat", "/proc/vmstat", "/proc/meminfo"

CPU = gauge(
    "system.cpu.utilization",
    "1",
    f"share of the time in which a core worked; without `{_CORE}`: the mean of all cores",
    _CORE,
    source=_STAT,
)
STEAL = gauge(
    "system.cpu.steal",
    "1",
    "share of the cores' time that the hypervisor gave to others",
    source=_STAT,
)
CPU_TIME = counter(
    "system.cpu.time", "s", "time of all cores by what they did", "cpu.mode", source=_STAT
)
CORES = gauge("system.cpu.logical.count", "{cpu}", "cores that are on", source=_STAT)
LOAD = gauge(
    "system.linux.load_1m",
    "1",
    "load average of one minute: tasks that run, wait for a core or for a disk",
    source="getloadavg(3)",
)
RUNNING = gauge(
    "system.linux.tasks.running",
    "{thread}",
    "threads that run or wait for a core at this moment: the run queue",
    source=_STAT,
)
BLOCKED = gauge(
    "system.linux.tasks.blocked", "{thread}", "threads that wait for a disk", source=_STAT
)
SWITCHES = counter(
    "system.linux.context_switches", "{context_switch}", "context switches", source=_STAT
)
CREATED = counter("system.process.created", "{process}", "processes begun", source=_STAT)
MEMORY = gauge(
    "system.memory.usage", "By", "memory that cannot be had without swapping", source=_MEMINFO
)
MEMORY_LIMIT = gauge("system.memory.limit", "By", "memory of the machine", source=_MEMINFO)
MEMORY_RATIO = gauge("system.memory.utilization", "1", "usage ÷ limit", source=_MEMINFO)
AVAILABLE = gauge(
    "system.memory.linux.available",
    "By",
    "memory that programs can have without swapping",
    source=_MEMINFO,
)
SWAP = gauge("system.paging.usage", "By", "swap space in use", source=_MEMINFO)
SWAP_RATIO = gauge("system.paging.utilization", "1", "swap usage ÷ swap space", source=_MEMINFO)
FAULTS = counter(
    "system.paging.faults",
    "{fault}",
    "page faults that had to wait for a disk",
    "system.paging.fault.type",
    source=_VMSTAT,
)
SWAPPED = counter(
    "system.paging.operations",
    "{operation}",
    "pages read from swap (`in`) and written to it (`out`)",
    "system.paging.direction",
    source=_VMSTAT,
)
KILLS = counter(
    "system.linux.oom_kills",
    "{process}",
    "processes that the kernel killed because memory ran out",
    source=_VMSTAT,
)
METRICS = (
    *(CPU, STEAL, CPU_TIME, CORES, LOAD, RUNNING, BLOCKED, SWITCHES, CREATED),
    *(MEMORY, MEMORY_LIMIT, MEMORY_RATIO, AVAILABLE, SWAP, SWAP_RATIO, FAULTS, SWAPPED, KILLS),
)

# The kernel's word -> OpenTelemetry's `cpu.mode`.
_MODES = {mode: mode for mode in procfs.CPU_MODES} | {"irq": "interrupt", "softirq": "interrupt"}


class Host:
    """Measures the machine; the network is that of the process that is recorded."""

    def __init__(self, root: int | None = None) -> None:
        """`root` is the process whose network namespace is looked at; None for our own."""
        self._instance = platform.node()
        self._cpus = procfs.stat(procfs.read(_STAT)).cpus
        self._disks = disk.Disks()
        self._network = network.Network(root)

    def measure(self, rows: Rows) -> None:
        """Add the rows of the machine."""
        rows.instance = self._instance
        self._measure_cores(rows)
        rows.add(LOAD, os.getloadavg()[0])
        _measure_memory(rows)
        pressure.measure_host(rows)
        self._disks.measure(rows)
        self._network.measure(rows)

    def _measure_cores(self, rows: Rows) -> None:
        stat = procfs.stat(procfs.read(_STAT))
        busy, steal = [], []
        for core in sorted(core for core in stat.cpus if core is not None):
            shares = _shares(self._cpus.get(core), stat.cpus[core])
            if shares is not None:
                busy.append(1 - shares["idle"] - shares.get("iowait", 0.0))
                steal.append(shares.get("steal", 0.0))
                rows.add(CPU, busy[-1], (_CORE, core))
        self._cpus = stat.cpus
        if busy:
            rows.add(CPU, sum(busy) / len(busy))
            rows.add(STEAL, sum(steal) / len(steal))
        spent: dict[str, int] = {}
        for mode, ticks in stat.cpus.get(None, {}).items():
            spent[_MODES[mode]] = spent.get(_MODES[mode], 0) + ticks
        for mode, ticks in spent.items():
            rows.add(CPU_TIME, ticks * _TICK_S, ("cpu.mode", mode))
        rows.add(CORES, len(stat.cpus) - 1 if None in stat.cpus else len(stat.cpus))
        for metric, key in (
            (RUNNING, "procs_running"),
            (BLOCKED, "procs_blocked"),
            (SWITCHES, "ctxt"),
            (CREATED, "processes"),
        ):
            if key in stat.counters:
                rows.add(metric, stat.counters[key])


def _shares(before: dict[str, int] | None, now: dict[str, int]) -> dict[str, float] | None:
    """Return mode -> share of the time between two readings; None when that is not known."""
    if before is None:
        return None
    # Some of these run backwards now and then (proc(5) says so of iowait).
    spent = {mode: max(ticks - before.get(mode, 0), 0) for mode, ticks in now.items()}
    total = sum(spent.values())
    return {mode: ticks / total for mode, ticks in spent.items()} if total else None


def _measure_memory(rows: Rows) -> None:
    memory = procfs.key_values(procfs.read(_MEMINFO))
    total, available = memory.get("MemTotal"), memory.get("MemAvailable")
    if total and available is not None:
        rows.add(MEMORY, total - available)
        rows.add(MEMORY_LIMIT, total)
        rows.add(MEMORY_RATIO, 1 - available / total)
        rows.add(AVAILABLE, available)
    swap, free = memory.get("SwapTotal"), memory.get("SwapFree")
    if swap and free is not None:
        rows.add(SWAP, swap - free)
        rows.add(SWAP_RATIO, 1 - free / swap)
    paging = procfs.key_values(procfs.read(_VMSTAT))
    if "pgmajfault" in paging:
        rows.add(FAULTS, paging["pgmajfault"], ("system.paging.fault.type", "major"))
    for key, direction in (("pswpin", "in"), ("pswpout", "out")):
        if key in paging:
            rows.add(SWAPPED, paging[key], ("system.paging.direction", direction))
    if "oom_kill" in paging:
        rows.add(KILLS, paging["oom_kill"])
