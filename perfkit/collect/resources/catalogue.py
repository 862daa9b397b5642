"""Every metric that perfkit measures itself, in the order of docs/metrics.md."""

from __future__ import annotations

from perfkit.collect.resources import (
    cgroup,
    connections,
    disk,
    host,
    network,
    pressure,
    process,
    tasks,
)
from perfkit.collect.resources.rows import Metric

METRICS: tuple[Metric, ...] = (
    *process.METRICS,
    *tasks.METRICS,
    *connections.METRICS,
    *cgroup.METRICS,
    *host.METRICS,
    *pressure.METRICS,
    *disk.METRICS,
    *network.METRICS,
)

OWN = frozenset(
    {
        "container.cpu.limit",
        "container.cpu.periods",
        "container.cpu.throttled.periods",
        "container.cpu.throttled.time",
        "container.memory.limit",
        "process.network.connection.count",
        "process.unix.file_descriptor.limit",
        "system.cpu.steal",
    }
)
"""Names for which the semantic conventions have none, beside all with `.linux.` in them."""


def is_own(metric: Metric) -> bool:
    """Whether the name is perfkit's own and not of OpenTelemetry's semantic conventions."""
    return metric.name in OWN or (
        ".linux." in metric.name and not metric.name.startswith("system.memory.linux.")
    )
