"""Pressure stall information: the share of time in which tasks waited for a resource.

https://docs.kernel.org/accounting/psi.html
"""

from __future__ import annotations

from collections.abc import Mapping

from perfkit.collect.resources import procfs
from perfkit.collect.resources.rows import Metric, Rows, counter, gauge

RESOURCES = ("cpu", "memory", "io")
_ATTRIBUTES = ("resource", "kind")

SHARE = gauge(
    "system.linux.psi",
    "1",
    "share of the last ten seconds in which some (`kind`), or all, tasks waited for the resource",
    *_ATTRIBUTES,
    source="/proc/pressure",
)
TIME = counter(
    "system.linux.psi.time",
    "s",
    "time in which some, or all, tasks waited for the resource",
    *_ATTRIBUTES,
    source="/proc/pressure",
)
GROUP_SHARE = gauge(
    "container.linux.psi",
    "1",
    "the same of the control group's own tasks",
    *_ATTRIBUTES,
    source="cgroup v2: *.pressure",
)
GROUP_TIME = counter(
    "container.linux.psi.time",
    "s",
    "the same of the control group's own tasks",
    *_ATTRIBUTES,
    source="cgroup v2: *.pressure",
)
METRICS = (SHARE, TIME, GROUP_SHARE, GROUP_TIME)


def measure_host(rows: Rows) -> None:
    """Add the machine's pressure, where the kernel says it."""
    _measure(rows, {name: procfs.read(f"/proc/pressure/{name}") for name in RESOURCES}, SHARE, TIME)


def measure_group(rows: Rows, texts: Mapping[str, str]) -> None:
    """Add a control group's pressure; `texts` are its pressure files by resource."""
    _measure(rows, texts, GROUP_SHARE, GROUP_TIME)


def _measure(rows: Rows, texts: Mapping[str, str], share: Metric, time: Metric) -> None:
    for resource, text in texts.items():
        for line in procfs.pressure(text):
            attributes = ("resource", resource), ("kind", line.kind)
            rows.add(share, line.average, *attributes)
            rows.add(time, line.total_s, *attributes)
