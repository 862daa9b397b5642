"""Answers of Prometheus' query API: `/api/v1/query_range`, `/api/v1/query`.

The answer does not say what kind of metric it is: names that end with `_total`, `_count`, `_sum` or
`_bucket` are counters by Prometheus' own rules, the rest is taken as gauges.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from perfkit.capture import CaptureWriter
from perfkit.importers import json_prefix, json_stream
from perfkit.importers.base import Format, Source
from perfkit.importers.rows import MetricRows, scaled
from perfkit.importers.tables import number
from perfkit.semconv import Value

NAME = "prometheus-json"
FORMAT = Format(
    title="Prometheus, answers of the query API",
    made_by="`curl '…/api/v1/query_range?query=…&start=…&end=…&step=…'`",
    recognised_by="`resultType` with `result`",
    gives="metrics",
    lacks="kind and unit (by the ending of the name)",
    tried="Prometheus 2.42.0",
)

_NS_PER_MS = 10**6
_COUNTERS = ("_total", "_count", "_sum", "_bucket")
_UNITS = {"_bytes": "By", "_seconds": "s", "_ratio": "1", "_celsius": "Cel"}


class _Series(msgspec.Struct):
    metric: dict[str, str] | None = None
    values: list[tuple[float, str]] | None = None
    value: tuple[float, str] | None = None
    cut: bool = msgspec.field(default=False, name=json_prefix.CUT)


class _Data(msgspec.Struct, rename="camel"):
    result_type: str = ""
    result: list[msgspec.Raw] | None = None


class _Answer(msgspec.Struct):
    status: str | None = None
    error: str | None = None
    data: _Data | None = None


_HINT_OF_LOGS = (
    "these are log lines of Loki: take them alone, logcli query --output=raw …; JSON lines are "
    "then read with --map"
)
_answer = msgspec.json.Decoder(_Answer)
_series = msgspec.json.Decoder(_Series)


def sniff(head: bytes, path: Path) -> bool:
    """Recognise the kind of result."""
    del path
    return head.lstrip()[:1] == b"{" and b'"resultType"' in head and b'"result"' in head


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all series."""
    answer = json_stream.decode(source, _answer, source.contents(), "an answer of Prometheus",
                                str(source), _may_be_partial) or _Answer()  # fmt: skip
    data = answer.data or _Data()
    if data.result_type not in ("matrix", "vector"):
        what = answer.error or f"a result of type {data.result_type or 'none'}"
        raise source.error(
            f"{what[:200]}: only matrix and vector are series",
            hint=_HINT_OF_LOGS if data.result_type == "streams" else None,
        )
    with MetricRows(source, writer) as rows:
        for position, raw in enumerate(data.result or (), 1):
            try:
                series = _series.decode(raw)
            except json_stream.BAD_JSON as error:
                place = f"{source}, series {position}"
                source.pass_over(json_stream.refuse("a series of Prometheus", place, error))
                continue
            _add(rows, series)


def _may_be_partial(path: json_prefix.Path) -> bool:
    """Whether it is the answer, its list of series, or a series with the list of its values."""
    series = ("data", "result", "*")
    return path in (*(series[:depth] for depth in range(4)), (*series, "values"))


def _add(rows: MetricRows, series: _Series) -> None:
    if series.cut and series.metric is None:  # cut off before it says what it is
        return
    labels: dict[str, Any] = dict(series.metric or {})
    name = str(labels.pop("__name__", "") or "query")
    if name.endswith("_created"):  # when the metric was made, no measurement
        return
    service = labels.pop("service", None) or labels.pop("job", None)
    instance = labels.pop("instance", None)
    kind, unit = kind_and_unit(name)
    attributes: dict[str, Value] = dict(labels)
    values = series.values or ([series.value] if series.value is not None else [])
    for seconds, text in values:
        value = number(text)
        if value is None:
            rows.reject("metric that is no finite number")
            continue
        ts_ms = scaled(seconds, 1000)  # Prometheus' times are whole ms
        ts_ns = ts_ms * _NS_PER_MS if ts_ms is not None else None
        rows.add(ts_ns, name, unit, value, kind=kind, service=service,
                 instance=instance, attributes=attributes)  # fmt: skip


def kind_and_unit(name: str) -> tuple[str, str]:
    """Return what a metric is by the rules for names."""
    kind = "counter" if name.endswith(_COUNTERS) else "gauge"
    base = name
    for ending in _COUNTERS:
        base = base.removesuffix(ending)
    if name.endswith(("_count", "_bucket")):
        return kind, "1"
    return kind, next((unit for ending, unit in _UNITS.items() if base.endswith(ending)), "1")
