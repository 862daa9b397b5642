"""OTLP metric points to rows of `metrics`."""

from __future__ import annotations

import functools
import math
from typing import Any

import msgspec

from perfkit.batch import Batch
from perfkit.formats.attributes import DamagedAttribute, json_text
from perfkit.formats.otlp_spans import Edge
from perfkit.formats.spans import MIN_TIME_NS, Origin

METRIC_COLUMNS = (
    *("service", "instance", "name", "unit", "kind", "ts_ns", "value", "count", "attributes"),
)
_SHAPES = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
_DELTA = frozenset({1, "1", "AGGREGATION_TEMPORALITY_DELTA"})
_NO_RECORDED_VALUE = 1
_BAD_RESOURCE = "metric point of a resource with an attribute that cannot be decoded"
# Namespaces of https://opentelemetry.io/docs/specs/semconv/resource/ that say who measured: the
# same for all series of a service instance. What else a resource has is what was measured, such as
# the collector's postgresql.table.name.
_WHO = frozenset(
    {
        *("service", "telemetry", "host", "os", "process", "container", "k8s", "cloud", "device"),
        *("deployment", "faas", "aws", "gcp", "azure", "heroku", "webengine", "browser"),
        *("user_agent", "otel", "schema"),
    }
)


class MetricRows:
    """Collects the rows of one body. Bad points are counted in `batch.rejected`.

    A sum that is not monotonic (an up-down counter) is a gauge: its value is a level. Histograms
    and summaries keep the sum and the count of what was observed; their buckets are not kept.
    """

    def __init__(self, edge: Edge) -> None:
        self.batch = Batch()
        self._edge = edge
        self._rows: list[tuple[Any, ...]] = []

    def add(self, metric: Any, source: Origin) -> None:
        """Take the points of one metric."""
        shape = next((name for name in _SHAPES if self._edge.present(metric, name)), None)
        if shape is None:
            self.batch.reject("metric without data")
            return
        data = getattr(metric, shape)
        shared = (
            *(source.service, source.instance, metric.name or "", metric.unit or None),
            _kind(shape, data),
        )
        measured = _measured(source.resource)
        for point in data.data_points or ():
            if (point.flags or 0) & _NO_RECORDED_VALUE:
                continue
            if source.left_out:  # as an attribute of a point: it may tell series apart
                self.batch.reject(_BAD_RESOURCE)
                continue
            try:
                ts_ns = int(point.time_unix_nano or 0)
                value, count = _value(shape, point)
                encoded = self._edge.encoded(point.attributes)
                attributes = self._edge.attributes.identity_of(encoded)
                if measured:
                    attributes = _merged(measured, attributes)
            except (ValueError, OverflowError, TypeError, DamagedAttribute):
                self.batch.reject("metric point that cannot be read")
                continue
            if not 0 < ts_ns < 2**63:
                self.batch.reject("metric point without a plausible time")
            elif ts_ns < MIN_TIME_NS:
                self.batch.reject("metric point whose time is not in nanoseconds since 1970")
            elif not math.isfinite(value) or (count is not None and not 0 <= count < 2**63):
                self.batch.reject("metric point whose value is no finite number")
            else:
                self._rows.append((*shared, ts_ns, value, count, attributes))

    def finish(self) -> Batch:
        """Return everything as columns."""
        self.batch.add_rows("metrics", METRIC_COLUMNS, self._rows)
        return self.batch


@functools.lru_cache(maxsize=1024)
def _measured(resource: str | None) -> dict[str, Any]:
    """Return what a resource says of what was measured."""
    found = msgspec.json.decode(resource) if resource else {}
    return {key: value for key, value in found.items() if key.partition(".")[0] not in _WHO}


def _merged(measured: dict[str, Any], attributes: str | None) -> str:
    """Add what was measured to the attributes of a point, whose own values win."""
    both = measured | (msgspec.json.decode(attributes) if attributes else {})
    return json_text({key: both[key] for key in sorted(both)})


def _kind(shape: str, data: Any) -> str:
    if shape == "gauge":
        return "gauge"
    if shape == "summary":
        return "histogram"
    if data.aggregation_temporality in _DELTA:
        return "delta"
    if shape == "sum":
        return "counter" if data.is_monotonic else "gauge"
    return "histogram"


def _value(shape: str, point: Any) -> tuple[float, int | None]:
    if shape in ("gauge", "sum"):
        # JSON leaves absent what is not set; protobuf gives zero for the member that is not set.
        return float(point.as_double or int(point.as_int or 0)), None
    return float(point.sum or 0.0), int(point.count or 0)
