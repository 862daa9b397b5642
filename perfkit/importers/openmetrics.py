"""OpenMetrics and Prometheus' text format: what `/metrics` answers, or several of them joined.

Times are seconds in OpenMetrics (it ends with `# EOF`), ms in Prometheus' text; most lines have
none and are of the time when the file was written. Sum and count of a histogram or a summary become
one row; buckets and quantiles are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from perfkit import units
from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.importers import json_stream
from perfkit.importers.base import Format, Source
from perfkit.importers.prometheus_json import kind_and_unit
from perfkit.importers.rows import MetricRows, scaled
from perfkit.importers.tables import number
from perfkit.semconv import Value

NAME = "openmetrics"
FORMAT = Format(
    title="OpenMetrics, Prometheus' text format",
    made_by="`curl …/metrics`",
    recognised_by="`# TYPE` or `# HELP` lines with samples under them",
    gives="metrics",
    lacks="times, where lines have none (the file's own); buckets and quantiles",
    tried="prometheus_client 0.26.0, Prometheus 2.42.0 (`/metrics`, `/federate`)",
)

_TYPE = re.compile(r"# (TYPE|UNIT) ([\w:.]+) (\S+)\s*")
_SAMPLE = re.compile(
    r'([a-zA-Z_:][\w:.]*)(\{(?:[^"}\n]|"(?:[^"\\\n]|\\.)*+")*+\})?'
    r"[ \t]+(\S+)(?:[ \t]+([^#\s]\S*))?\s*"
    r"(?:# [^\n]*)?"  # an exemplar may follow
)
_LABEL = re.compile(r'\s*([\w.]+)="((?:[^"\\\n]|\\.)*+)"\s*(?:,|$)')
_SNIFFED = re.compile(rb"(?:#[^\n]*\n)*?# (?:TYPE|HELP) [\w:.]+ [^\n]*\n")
_MAX_LINE = 64 << 10
_ESCAPES = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


@dataclass
class _Family:
    kind: str = ""
    unit: str | None = None


@dataclass
class _State:
    families: dict[str, _Family] = field(default_factory=dict)
    pairs: dict[tuple[str, str, int], dict[str, float]] = field(default_factory=dict)
    """(family, labels, time) -> the sum and the count of a histogram, until both are there."""
    buckets: int = 0


def sniff(head: bytes, path: Path) -> bool:
    """Recognise descriptions of metrics."""
    del path
    return head.startswith(b"# ") and _SNIFFED.match(head) is not None


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all samples."""
    factor = 10**9 if _is_openmetrics(source) else 10**6
    now_ns = source.started_at_ns if source.started_at_ns is not None else source.modified_ns
    state = _State()
    timeless = 0
    with MetricRows(source, writer) as rows:
        for place, line in json_stream.lines(source):
            text = line.decode("utf-8", "replace")
            if text.startswith("#"):
                if described := _TYPE.fullmatch(text):
                    family = state.families.setdefault(described[2], _Family())
                    if described[1] == "TYPE":
                        family.kind = described[3]
                    else:
                        family.unit = described[3]
                continue
            match = _SAMPLE.fullmatch(text) if len(text) < _MAX_LINE else None
            if match is None:
                source.pass_over(
                    InputError("no sample of OpenMetrics (`name{label=…} value`)", where=place)
                )
                continue
            ts_ns = scaled(match[4], factor) if match[4] else now_ns
            value = number(match[3])
            if value is None or ts_ns is None:
                rows.reject("metric that is no finite number")
            else:
                labels = dict(_labels(match[2] or "", place))
                kept = _add(rows, state, match[1], labels, ts_ns, value)
                timeless += kept and match[4] is None
    if timeless:
        writer.note(
            f"{source.name}: {timeless} metrics have no time; they are taken to be of "
            f"{units.timestamp(now_ns)}, when the file was written, if --started-at does not say"
        )
    if state.buckets:
        writer.note(f"{source.name}: {state.buckets} buckets and quantiles are left out")


def _is_openmetrics(source: Source) -> bool:
    last = b""
    for chunk in source.chunks():
        last = (last + chunk)[-64:]
    return last.rstrip().endswith(b"# EOF")


def _labels(text: str, place: str) -> Iterator[tuple[str, str]]:
    inner = text[1:-1]
    at = 0
    while at < len(inner.rstrip()):
        match = _LABEL.match(inner, at)
        if match is None:
            raise InputError('labels that are not `name="value"`', where=place)
        yield match[1], re.sub(r'\\[n"\\]', lambda found: _ESCAPES[found[0]], match[2])
        at = match.end()


def _add(
    rows: MetricRows,
    state: _State,
    name: str,
    labels: dict[str, str],
    ts_ns: int,
    value: float,
) -> bool:
    """Add a sample, or its histogram once it is whole; whether a row came of it."""
    for ending in ("_bucket", "_sum", "_count", "_created", "_total", ""):
        base = name.removesuffix(ending)
        family = state.families.get(base)
        if family is not None and name.endswith(ending):
            break
    else:
        family, base, ending = _Family(), name, ""
    service = labels.pop("service", None) or labels.pop("job", None)
    instance = labels.pop("instance", None)
    kind, unit = kind_and_unit(name)
    unit = {"seconds": "s", "bytes": "By", "ratio": "1"}.get(family.unit or "", unit)
    attributes: dict[str, Value] = dict(labels)
    shared = {"service": service, "instance": instance, "attributes": attributes}
    if family.kind in ("histogram", "summary", "gaugehistogram"):
        if ending not in ("_sum", "_count"):
            state.buckets += 1
            return False
        key = (base, f"{service} {instance} {sorted(labels.items())}", ts_ns)
        pair = state.pairs.setdefault(key, {})
        pair[ending] = value
        if len(pair) == 2:
            del state.pairs[key]
            unit = kind_and_unit(base)[1]
            return rows.add(ts_ns, base, unit, pair["_sum"], kind="histogram",
                     count=scaled(pair["_count"], 1), **shared)  # type: ignore[arg-type]  # fmt: skip
        return False
    if name.endswith("_created"):  # when the metric was made, no measurement
        return False
    if family.kind not in ("", "untyped", "unknown"):
        kind = "counter" if family.kind == "counter" else "gauge"
    return rows.add(ts_ns, name, unit, value, kind=kind, **shared)  # type: ignore[arg-type]
