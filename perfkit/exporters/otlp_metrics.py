"""Metric points as OTLP JSON requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import polars as pl

from perfkit.exporters.otlp_values import key_values

_DELTA, _CUMULATIVE = 1, 2
_POINTS_A_LINE = 5000


def metric_requests(metrics: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield one request a service, instance and some thousand points."""
    for source in metrics.partition_by("service", "instance", maintain_order=True):
        for piece in source.iter_slices(_POINTS_A_LINE):
            attributes = {
                "service.name": piece["service"][0],
                "service.instance.id": piece["instance"][0],
            }
            known = {key: value for key, value in attributes.items() if value is not None}
            # A level and a distribution of one name are two metrics.
            series = piece.with_columns(distribution=pl.col("count").is_not_null()).partition_by(
                "name", "unit", "kind", "distribution", maintain_order=True
            )
            yield {
                "resourceMetrics": [
                    {
                        "resource": {"attributes": key_values(known)},
                        "scopeMetrics": [{"metrics": [_metric(one) for one in series]}],
                    }
                ]
            }


def _metric(points: pl.DataFrame) -> dict[str, Any]:
    kind, distribution = points["kind"][0], points["distribution"][0]
    metric: dict[str, Any] = {"name": points["name"][0] or ""}
    if points["unit"][0]:
        metric["unit"] = points["unit"][0]
    written = [_point(row, distribution) for row in points.iter_rows(named=True)]
    temporality = _DELTA if kind == "delta" else _CUMULATIVE
    if distribution or kind == "histogram":
        metric["histogram"] = {"aggregationTemporality": temporality, "dataPoints": written}
    elif kind == "gauge":
        metric["gauge"] = {"dataPoints": written}
    else:
        metric["sum"] = {
            "aggregationTemporality": temporality,
            "isMonotonic": True,
            "dataPoints": written,
        }
    return metric


def _point(row: dict[str, Any], distribution: bool) -> dict[str, Any]:
    point: dict[str, Any] = {"timeUnixNano": str(row["ts_ns"])}
    if row["attributes"]:
        point["attributes"] = key_values(msgspec.json.decode(row["attributes"]))
    if distribution:
        return {**point, "count": str(row["count"]), "sum": row["value"]}
    return {**point, "asDouble": row["value"]}
