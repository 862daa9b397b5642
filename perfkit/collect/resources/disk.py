"""Measures disks: what was read and written, how long it took, how busy they were."""

from __future__ import annotations

import os
import re

from perfkit.collect.resources import procfs
from perfkit.collect.resources.rows import Deltas, Rows, counter, gauge

_DEVICE, _DIRECTION = "system.device", "disk.io.direction"
_SOURCE = "/proc/diskstats"
_SECTOR_BYTES = 512
_MAX_DEVICES = 16
# Memory that looks like a disk; partitions are told from disks by /sys/block.
_NO_DISK = re.compile(r"(?:loop|ram|zram|fd|sr)\d+$")

IO = counter("system.disk.io", "By", "bytes read and written", _DEVICE, _DIRECTION, source=_SOURCE)
OPERATIONS = counter(
    "system.disk.operations", "{operation}", "operations done", _DEVICE, _DIRECTION, source=_SOURCE
)
OPERATION_TIME = counter(
    "system.disk.operation_time",
    "s",
    "time that the operations took, waiting in the queue included, added up",
    _DEVICE,
    _DIRECTION,
    source=_SOURCE,
)
BUSY_TIME = counter(
    "system.disk.io_time",
    "s",
    "time in which the disk had something to do",
    _DEVICE,
    source=_SOURCE,
)
LATENCY = gauge(
    "system.linux.disk.latency",
    "s",
    "mean time of the operations done since the last reading; none without operations",
    _DEVICE,
    _DIRECTION,
    source=_SOURCE,
)
BUSY = gauge(
    "system.linux.disk.utilization",
    "1",
    "share of the time in which the disk had something to do; at 1 an SSD may do still more",
    _DEVICE,
    source=_SOURCE,
)
QUEUE = gauge(
    "system.linux.disk.queue_length",
    "{operation}",
    "operations under way, on average since the last reading",
    _DEVICE,
    source=_SOURCE,
)
METRICS = (IO, OPERATIONS, OPERATION_TIME, BUSY_TIME, LATENCY, BUSY, QUEUE)


class Disks:
    """Measures the machine's disks."""

    def __init__(self) -> None:
        self._deltas = Deltas()

    def measure(self, rows: Rows) -> None:
        """Add the rows of every disk that did something since the machine began."""
        found = procfs.disks(procfs.read(_SOURCE))
        used = [name for name, disk in found.items() if disk.reads + disk.writes]
        for name in [name for name in used if is_disk(name)][:_MAX_DEVICES]:
            self.measure_one(rows, name, found[name])

    def measure_one(self, rows: Rows, name: str, disk: procfs.Disk) -> None:
        """Add the rows of one disk."""
        device = (_DEVICE, name)
        for direction, sectors, operations, milliseconds in (
            ("read", disk.read_sectors, disk.reads, disk.read_ms),
            ("write", disk.write_sectors, disk.writes, disk.write_ms),
        ):
            attributes = device, (_DIRECTION, direction)
            rows.add(IO, sectors * _SECTOR_BYTES, *attributes)
            rows.add(OPERATIONS, operations, *attributes)
            rows.add(OPERATION_TIME, milliseconds / 1e3, *attributes)
            done = self._deltas.since((name, direction, "done"), rows.clock_s, operations)
            took = self._deltas.since((name, direction, "ms"), rows.clock_s, milliseconds)
            if done and took and done[1]:
                rows.add(LATENCY, took[1] / 1e3 / done[1], *attributes)
        rows.add(BUSY_TIME, disk.busy_ms / 1e3, device)
        if busy := self._deltas.since((name, "busy"), rows.clock_s, disk.busy_ms):
            # The kernel counts in milliseconds: it may be a little more than the time itself.
            rows.add(BUSY, min(busy[1] / 1e3 / busy[0], 1.0), device)
        if queued := self._deltas.since((name, "queued"), rows.clock_s, disk.queued_ms):
            rows.add(QUEUE, queued[1] / 1e3 / queued[0], device)


def is_disk(name: str) -> bool:
    """Whether it is a whole disk and not a partition or memory."""
    # A slash in the name of a device is an exclamation mark in /sys.
    return not _NO_DISK.match(name) and os.path.exists(f"/sys/block/{name.replace('/', '!')}")
