"""Readings of psutil as CSV: a time, and columns named as psutil names them."""

from __future__ import annotations

from pathlib import Path

from perfkit.capture import CaptureWriter
from perfkit.formats import times
from perfkit.importers import tables
from perfkit.importers.base import Format, Source
from perfkit.importers.psutil_jsonl import METRICS, OTHER_NAMES, Guesses, Metric
from perfkit.importers.rows import MetricRows
from perfkit.semconv import Value

NAME = "psutil-csv"
FORMAT = Format(
    title="psutil readings, CSV",
    made_by="your own loop over psutil: `time,cpu_percent,rss,…`",
    recognised_by="a column `t`, `time`, `ts` or `timestamp` first, and one of psutil's names",
    gives="metrics of a process, or of the machine where it has memory of that and none of one",
    lacks="process and host",
    tried="psutil 7.2.2",
)

_TIMES = ("t", "ts", "time", "timestamp")
# What is of the whole machine: psutil's `virtual_memory()` and `swap_memory()`.
_MACHINE = {
    "mem_percent": METRICS["sys_mem"],
    "virtual_memory_percent": METRICS["sys_mem"],
    "mem_used": Metric("system.memory.usage", "By"),
    "mem_available": Metric("system.memory.linux.available", "By"),
    "swap_percent": Metric("system.paging.utilization", "1", factor=0.01),
}
_OF_A_PROCESS = {"rss", "vms", "mem", "threads", "fds", "rd", "wr", "vcs", "ics"}
_MAX_NAMED = 12


def _columns(names: list[str]) -> dict[str, tuple[str, Metric]]:
    """Return the readings among columns: each with perfkit's short name of it."""
    short = {OTHER_NAMES.get(name.lower(), name.lower()) for name in names}
    machine = bool(short & _MACHINE.keys()) and not short & _OF_A_PROCESS
    found: dict[str, tuple[str, Metric]] = {}
    for name in names:
        plain = OTHER_NAMES.get(name.lower(), name.lower())
        if machine and plain == "cpu":  # `psutil.cpu_percent()`: of all cores together
            plain = "sys_cpu"
        metric = METRICS.get(plain, _MACHINE.get(plain))
        if metric is not None:
            found[name] = plain, metric
    return found


def sniff(head: bytes, path: Path) -> bool:
    """Recognise a time first, and a reading."""
    del path
    names = tables.header(head)
    return bool(names) and names[0].lower() in _TIMES and bool(_columns(names[1:]))


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all readings."""
    names = tables.header(source.head())[1:]
    columns = _columns(names)
    if others := [name for name in names if name not in columns]:
        shown = ", ".join(others[:_MAX_NAMED]) + (" …" if len(others) > _MAX_NAMED else "")
        writer.note(
            f"{source.name}: left out, as no reading that is known: {shown}; --map imports them"
        )
    guesses = Guesses()
    with MetricRows(source, writer) as rows:
        for _, row in tables.rows(source):
            text = next(iter(row.values()))
            seconds = tables.number(text)
            ts_ns = times.from_number(seconds) if seconds is not None else times.from_text(text)
            for name, (reading, metric) in columns.items():
                value = tables.number(row[name])
                if value is None:
                    continue
                attributes = _attributes(metric)
                rows.add(ts_ns, metric.name, metric.unit, value * metric.factor,
                         kind=metric.kind, attributes=attributes)  # fmt: skip
                guesses.taken(name, reading, value)
    guesses.note(source, writer)


def _attributes(metric: Metric) -> dict[str, Value]:
    """Return the one attribute that the readings as JSON have as text."""
    if metric.attributes is None:
        return {}
    key, value = metric.attributes.strip("{}").split(":")
    return {key.strip('"'): value.strip('"')}
