"""Readings of psutil as JSON lines: `{"t": 1795416393.1, "cpu": 18.0, "rss": 304283648, …}`.

`t` (or `time`, `ts`, `timestamp`) is Unix seconds, `cpu`, `sys_cpu` and `sys_mem` are taken as per
cent (`cpu` of one core), which is noted; sizes are bytes. psutil's own names do too, and what
`Process.as_dict` gives: its named tuples become lists in JSON. The process and the host are not
named in it, so the column `instance` is null.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from perfkit.batch import Batch
from perfkit.capture import CaptureWriter
from perfkit.importers import json_stream
from perfkit.importers.base import Format, Source

NAME = "psutil-jsonl"
FORMAT = Format(
    title="psutil readings, JSON",
    made_by='your own loop over psutil: `{"t": …, "cpu": …, "rss": …}`, or `Process.as_dict()`',
    recognised_by="a time first (`t`, `time`, `ts`, `timestamp`), and one of psutil's names",
    gives="metrics",
    lacks="process and host",
    tried="psutil 7.2.2",
)

COLUMNS = ("ts_ns", "name", "unit", "kind", "value", "attributes")
_MAX_SECONDS = 9_000_000_000


class Metric(NamedTuple):
    """What a reading is: its factor makes it the unit."""

    name: str
    unit: str
    kind: str = "gauge"
    factor: float = 1.0
    attributes: str | None = None


METRICS = {
    "cpu": Metric("process.cpu.utilization", "1", factor=0.01),
    "rss": Metric("process.memory.usage", "By"),
    "vms": Metric("process.memory.virtual", "By"),
    "threads": Metric("process.thread.count", "{thread}"),
    "fds": Metric("process.unix.file_descriptor.count", "{file_descriptor}"),
    "rd": Metric("process.disk.io", "By", "counter", attributes='{"disk.io.direction":"read"}'),
    "wr": Metric("process.disk.io", "By", "counter", attributes='{"disk.io.direction":"write"}'),
    "vcs": Metric(
        "process.context_switches",
        "{context_switch}",
        "counter",
        attributes='{"process.context_switch.type":"voluntary"}',
    ),
    "ics": Metric(
        "process.context_switches",
        "{context_switch}",
        "counter",
        attributes='{"process.context_switch.type":"involuntary"}',
    ),
    "sys_cpu": Metric("system.cpu.utilization", "1", factor=0.01),
    "mem": Metric("process.memory.utilization", "1", factor=0.01),
    "sys_mem": Metric("system.memory.utilization", "1", factor=0.01),
}

OTHER_NAMES: dict[str, str] = {
    "cpu_percent": "cpu",
    "num_threads": "threads",
    "num_fds": "fds",
    "memory_rss": "rss",
    "memory_vms": "vms",
    "read_bytes": "rd",
    "write_bytes": "wr",
    "system_cpu_percent": "sys_cpu",
    "memory_percent": "mem",  # only processes have it; the system's is `virtual_memory().percent`
    "system_memory_percent": "sys_mem",
}
"""What psutil calls the readings."""

_UNSAID = {
    "cpu": "of one core",
    "sys_cpu": "of all cores",
    "mem": "of memory",
    "sys_mem": "of memory",
}
"""Names that do not say that they are per cent, as psutil's own do, and what of."""


class Guesses:
    """Which readings of a file were taken as per cent without having said it."""

    def __init__(self) -> None:
        self._highest: dict[str, tuple[str, float]] = {}

    def taken(self, name: str, reading: str, value: float) -> None:
        """Take in a value of a column, and which of the readings it was taken for."""
        if reading in _UNSAID and not name.lower().endswith("percent"):
            highest = self._highest.get(name, (reading, value))[1]
            self._highest[name] = (reading, max(highest, value))

    def note(self, source: Source, writer: CaptureWriter) -> None:
        """Say what was guessed, and how to say it otherwise."""
        for name, (reading, highest) in self._highest.items():
            writer.note(
                f"{source.name}: {name} is taken as per cent {_UNSAID[reading]}, its highest "
                f"{highest:.4g} as {highest:.4g} %; if it is a share of 1, say so: "
                f"--map ts_ns=…,{METRICS[reading].name}={name}:1"
            )


_TUPLES = {  # of psutil on Linux
    "memory_info": ("rss", "vms"),
    "memory_full_info": ("rss", "vms"),
    "io_counters": ("", "", "rd", "wr"),
    "num_ctx_switches": ("vcs", "ics"),
}
_TIMES = ("t", "time", "ts", "timestamp")
_reading = msgspec.json.Decoder(dict[str, Any])
_HEAD = re.compile(rb'\s*(?:\[\s*)?\{\s*"(?:t|time|ts|timestamp)"\s*:\s*\d')
_FIRST_BYTES = 4096
_SEEN = ("cpu", "rss", "sys_cpu", "cpu_percent", "memory_info", "io_counters", "num_threads")


def sniff(head: bytes, path: Path) -> bool:
    """Recognise the time `t` and one of the readings."""
    del path
    first = head[:_FIRST_BYTES]
    return _HEAD.match(first) is not None and any(f'"{key}"'.encode() in first for key in _SEEN)


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all readings."""
    rows: list[tuple[Any, ...]] = []
    batch = Batch()
    guesses = Guesses()
    try:
        for place, raw in json_stream.records(source):
            with source.record():
                _add(batch, rows, guesses, raw, place)
    finally:
        batch.add_rows("metrics", COLUMNS, rows)
        writer.add(batch)
        guesses.note(source, writer)


def _add(
    batch: Batch,
    rows: list[tuple[Any, ...]],
    guesses: Guesses,
    raw: msgspec.Raw | bytes,
    where: str,
) -> None:
    try:
        reading = _reading.decode(raw)
    except json_stream.BAD_JSON as error:
        raise json_stream.refuse("a JSON object", where, error) from error
    seconds = next((found for key in _TIMES if (found := _number(reading.get(key)))), None)
    if seconds is None or not 0 < seconds < _MAX_SECONDS:
        batch.reject("reading without a plausible time")
        return
    named = _named(reading)
    for key, metric in METRICS.items():
        value = _number(named.get(key))
        if value is not None:
            shared = (metric.name, metric.unit, metric.kind, value * metric.factor)
            rows.append((round(seconds * 1e9), *shared, metric.attributes))
            if key in reading:
                guesses.taken(key, key, value)


def _named(reading: dict[str, Any]) -> dict[str, Any]:
    """Return the readings by perfkit's short names."""
    named = {OTHER_NAMES.get(key, key): value for key, value in reading.items()}
    for key, parts in _TUPLES.items():
        values = reading.get(key)
        if isinstance(values, list):
            named.update(zip(parts, values, strict=False))
        elif isinstance(values, dict):
            for part, value in values.items():
                named[str(OTHER_NAMES.get(part, part))] = value
    return named


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < 2**63 else None
