"""Readings of psutil as CSV: a time, and columns named as psutil names them."""

from __future__ import annotations

from pathlib import Path

from perfkit.capture import CaptureWriter
from perfkit.formats import times
from perfkit.importers import tables
from perfkit.importers.base import Format, Source
from perfkit.importers.psutil_jsonl import METRICS, OTHER_NAMES, Metric
from perfkit.importers.rows import MetricRows
from perfkit.semconv import Value

NAME = "psutil-csv"
FORMAT = Format(
    title="psutil readings, CSV",
    made_by="your own loop over psutil: `time,cpu_percent,rss,…`",
    recognised_by="a column `t`, `time`, `ts` or `timestamp` first, and one of psutil's names",
    gives="metrics",
    lacks="process and host",
    tried="psutil 7.2.2",
)

_TIMES = ("t", "ts", "time", "timestamp")


def _columns(names: list[str]) -> dict[str, Metric]:
    found: dict[str, Metric] = {}
    for name in names:
        plain = name.lower()
        metric = METRICS.get(OTHER_NAMES.get(plain, plain))
        if metric is not None:
            found[name] = metric
    return found


def sniff(head: bytes, path: Path) -> bool:
    """Recognise a time first, and a reading."""
    del path
    names = tables.header(head)
    return bool(names) and names[0].lower() in _TIMES and bool(_columns(names[1:]))


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all readings."""
    columns = _columns(tables.header(source.head())[1:])
    with MetricRows(source, writer) as rows:
        for _, row in tables.rows(source):
            text = next(iter(row.values()))
            seconds = tables.number(text)
            ts_ns = times.from_number(seconds) if seconds is not None else times.from_text(text)
            for name, metric in columns.items():
                value = tables.number(row[name])
                if value is None:
                    continue
                attributes = _attributes(metric)
                rows.add(ts_ns, metric.name, metric.unit, value * metric.factor,
                         kind=metric.kind, attributes=attributes)  # fmt: skip


def _attributes(metric: Metric) -> dict[str, Value]:
    """Return the one attribute that the readings as JSON have as text."""
    if metric.attributes is None:
        return {}
    key, value = metric.attributes.strip("{}").split(":")
    return {key.strip('"'): value.strip('"')}
