"""Measures the control group of a process: what its container may use, uses and is denied.

https://docs.kernel.org/admin-guide/cgroup-v2.html and …/cgroup-v1. A limit may stand in a group
further up: the tightest one counts, with the usage of the group that it stands in.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from perfkit.collect import processes
from perfkit.collect.resources import cgroup_paths, pressure, procfs
from perfkit.collect.resources.rows import Rows, counter, gauge

# Version 1 writes "no limit" as the largest multiple of a page below 2**63.
_NO_LIMIT_BYTES = 1 << 60

CPU_LIMIT = gauge(
    "container.cpu.limit",
    "{cpu}",
    "cores that the group may use (quota ÷ period)",
    source="cpu.max; v1: cpu.cfs_quota_us",
)
CPU_TIME = counter(
    "container.cpu.time", "s", "time on a core", source="cpu.stat; v1: cpuacct.usage"
)
PERIODS = counter(
    "container.cpu.periods", "{period}", "periods in which the group ran", source="cpu.stat"
)
THROTTLED_PERIODS = counter(
    "container.cpu.throttled.periods",
    "{period}",
    "periods in which it had used up its quota and was held back",
    source="cpu.stat",
)
THROTTLED_TIME = counter(
    "container.cpu.throttled.time",
    "s",
    "time for which it was held back, added up over the cores",
    source="cpu.stat",
)
MEMORY = gauge(
    "container.memory.usage",
    "By",
    "memory of the group, the page cache included",
    source="memory.current; v1: memory.usage_in_bytes",
)
MEMORY_LIMIT = gauge(
    "container.memory.limit",
    "By",
    "memory that the group may use",
    source="memory.max; v1: memory.limit_in_bytes",
)
WORKING_SET = gauge(
    "container.memory.working_set",
    "By",
    "usage without the page cache that can be given back at once",
    source="memory.stat",
)
RSS = gauge(
    "container.memory.rss", "By", "memory of the group that no file backs", source="memory.stat"
)
FAULTS = counter(
    "container.paging.faults",
    "{fault}",
    "page faults that had to wait for a disk",
    "system.paging.fault.type",
    source="memory.stat",
)
LIMIT_HITS = counter(
    "container.linux.memory.limit_hits",
    "{event}",
    "how often the group was at its memory limit and the kernel had to free some",
    source="memory.events; v1: memory.failcnt",
)
KILLS = counter(
    "container.linux.oom_kills",
    "{process}",
    "processes of the group that the kernel killed because memory ran out",
    source="memory.events; v1: memory.oom_control",
)
IO = counter(
    "container.disk.io",
    "By",
    "bytes read and written",
    "disk.io.direction",
    source="io.stat; v1: blkio.throttle.io_service_bytes",
)
METRICS = (
    *(CPU_LIMIT, CPU_TIME, PERIODS, THROTTLED_PERIODS, THROTTLED_TIME),
    *(MEMORY, MEMORY_LIMIT, WORKING_SET, RSS, FAULTS, LIMIT_HITS, KILLS, IO),
)


class _Memory(NamedTuple):
    """The names of a version's files and of their keys."""

    limit: str
    usage: str
    hits: tuple[str, str]
    kills: tuple[str, str]
    inactive: str
    anonymous: str


_V2 = _Memory(
    "memory.max",
    "memory.current",
    ("memory.events", "max"),
    ("memory.events", "oom_kill"),
    "inactive_file",
    "anon",
)
_V1 = _Memory(
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("memory.failcnt", ""),
    ("memory.oom_control", "oom_kill"),
    "total_inactive_file",
    "total_rss",
)


class Cgroup:
    """Measures the groups that a process was in when this was made."""

    def __init__(self, pid: int, groups: cgroup_paths.Groups | None = None) -> None:
        self._instance = processes.instance(pid)
        self._groups = groups or cgroup_paths.find(pid)

    def measure(self, rows: Rows) -> None:
        """Add the rows of what limits the process; the topmost group is the machine itself."""
        rows.instance = self._instance
        groups = self._groups
        _measure_memory(rows, groups.memory or groups.unified, _V1 if groups.memory else _V2)
        if groups.cpu:
            _measure_cpu_v1(rows, groups)
        else:
            _measure_cpu_v2(rows, groups.unified)
        if len(groups.unified) > 1:
            own = groups.unified[0]
            texts = {name: procfs.read(own / f"{name}.pressure") for name in pressure.RESOURCES}
            pressure.measure_group(rows, texts)
        if len(groups.blkio) > 1:
            text = procfs.read(groups.blkio[0] / "blkio.throttle.io_service_bytes")
            _add_io(rows, io_v1(text))
        elif len(groups.unified) > 1:
            _add_io(rows, io_v2(procfs.read(groups.unified[0] / "io.stat")))


def _measure_memory(rows: Rows, folders: list[Path], names: _Memory) -> None:
    limits = [
        (limit, place)
        for place, folder in enumerate(folders)
        if (limit := procfs.number(procfs.read(folder / names.limit))) is not None
        and limit < _NO_LIMIT_BYTES
    ]
    if not limits:
        return
    limit, place = min(limits)
    folder = folders[place]
    usage = procfs.number(procfs.read(folder / names.usage))
    if usage is None:
        return
    rows.add(MEMORY_LIMIT, limit)
    rows.add(MEMORY, usage)
    stat = procfs.key_values(procfs.read(folder / "memory.stat"))
    if names.inactive in stat:
        rows.add(WORKING_SET, max(usage - stat[names.inactive], 0))
    if names.anonymous in stat:
        rows.add(RSS, stat[names.anonymous])
    faults = stat.get("total_pgmajfault", stat.get("pgmajfault"))
    if faults is not None:
        rows.add(FAULTS, faults, ("system.paging.fault.type", "major"))
    for metric, (file, key) in ((LIMIT_HITS, names.hits), (KILLS, names.kills)):
        text = procfs.read(folder / file)
        count = procfs.key_values(text).get(key) if key else procfs.number(text)
        if count is not None:
            rows.add(metric, count)


def quota(text: str) -> float | None:
    """Return the cores that a `QUOTA PERIOD` in microseconds allows; None for no limit.

    No limit is `max` in version 2 and -1 in version 1.
    """
    values = [procfs.number(field) for field in text.split()]
    if len(values) != 2 or not values[0] or not values[1]:
        return None
    return values[0] / values[1]


def _tightest(quotas: Iterable[float | None]) -> tuple[float, int] | None:
    limits = [(cores, place) for place, cores in enumerate(quotas) if cores is not None]
    return min(limits) if limits else None


def _measure_cpu_v2(rows: Rows, folders: list[Path]) -> None:
    found = _tightest(quota(procfs.read(folder / "cpu.max")) for folder in folders)
    if found is None:
        return
    stat = procfs.key_values(procfs.read(folders[found[1]] / "cpu.stat"))
    rows.add(CPU_LIMIT, found[0])
    if "usage_usec" in stat:
        rows.add(CPU_TIME, stat["usage_usec"] / 1e6)
    _add_throttling(rows, stat, "throttled_usec", 1e6)


def _measure_cpu_v1(rows: Rows, groups: cgroup_paths.Groups) -> None:
    files = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    found = _tightest(
        quota(" ".join(procfs.read(folder / name) for name in files)) for folder in groups.cpu
    )
    if found is None:
        return
    cores, place = found
    rows.add(CPU_LIMIT, cores)
    # The two controllers are mostly mounted together.
    if place < len(groups.cpuacct):
        used = procfs.number(procfs.read(groups.cpuacct[place] / "cpuacct.usage"))
        if used is not None and groups.cpuacct[place].name == groups.cpu[place].name:
            rows.add(CPU_TIME, used / 1e9)
    stat = procfs.key_values(procfs.read(groups.cpu[place] / "cpu.stat"))
    _add_throttling(rows, stat, "throttled_time", 1e9)


def _add_throttling(rows: Rows, stat: dict[str, int], key: str, per_second: float) -> None:
    if key in stat:
        rows.add(THROTTLED_TIME, stat[key] / per_second)
    for metric, name in ((THROTTLED_PERIODS, "nr_throttled"), (PERIODS, "nr_periods")):
        if name in stat:
            rows.add(metric, stat[name])


def io_v2(text: str) -> dict[str, int]:
    """Add up `io.stat` over the devices: `read` and `write` bytes."""
    sums: dict[str, int] = {}
    for line in text.splitlines():
        for field in line.split()[1:]:
            key, _, value = field.partition("=")
            count, direction = procfs.number(value), {"rbytes": "read", "wbytes": "write"}.get(key)
            if count is not None and direction:
                sums[direction] = sums.get(direction, 0) + count
    return sums


def io_v1(text: str) -> dict[str, int]:
    """Add up `blkio.throttle.io_service_bytes` over the devices: `read` and `write` bytes."""
    sums: dict[str, int] = {}
    for line in text.splitlines():
        fields = line.split()
        count = procfs.number(fields[2]) if len(fields) == 3 else None
        if count is not None and fields[1] in ("Read", "Write"):
            direction = fields[1].lower()
            sums[direction] = sums.get(direction, 0) + count
    return sums


def _add_io(rows: Rows, sums: dict[str, int]) -> None:
    for direction, count in sums.items():
        rows.add(IO, count, ("disk.io.direction", direction))
