from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from perfkit import model
from perfkit.formats import otlp
from perfkit.parts import conform
from tests.formats.build_otlp import ATTRIBUTES, TEXT, TIMES

SAMPLES = Path(__file__).resolve().parent.parent / "importers" / "samples"
SHAPES = ("gauge", "sum", "histogram", "exponential_histogram", "summary")


@st.composite
def requests(draw: st.DrawFn) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    group.resource.attributes.extend(draw(ATTRIBUTES))
    part = group.scope_metrics.add()
    for _ in range(draw(st.integers(0, 3))):
        metric = part.metrics.add(name=draw(TEXT), unit=draw(TEXT))
        shape = draw(st.sampled_from(SHAPES))
        data = getattr(metric, shape)
        data.SetInParent()
        if shape in ("sum", "histogram", "exponential_histogram"):
            data.aggregation_temporality = draw(st.integers(0, 2))
        if shape == "sum":
            data.is_monotonic = draw(st.booleans())
        for _ in range(draw(st.integers(0, 3))):
            point = data.data_points.add(
                time_unix_nano=draw(TIMES),
                attributes=draw(ATTRIBUTES),
                flags=draw(st.integers(0, 1)),
            )
            if shape in ("gauge", "sum"):
                if draw(st.booleans()):
                    point.as_int = draw(st.integers(-(2**63), 2**63 - 1))
                else:
                    point.as_double = draw(st.floats())
            else:
                point.count, point.sum = draw(st.integers(0, 2**64 - 1)), draw(st.floats())
    return request


@given(requests())
def test_json_and_protobuf_of_the_same_points_give_the_same_batch(
    request: ExportMetricsServiceRequest,
) -> None:
    body = json.dumps(json_format.MessageToDict(request)).encode()
    batch = otlp.metrics_from_protobuf(request.SerializeToString())
    assert otlp.metrics_from_json(body) == batch
    points = [
        point
        for group in request.resource_metrics
        for part in group.scope_metrics
        for metric in part.metrics
        for point in getattr(metric, metric.WhichOneof("data")).data_points
        if not point.flags & 1
    ]
    rows = conform(model.METRICS, batch.tables.get("metrics", {}))
    assert rows.height + sum(batch.rejected.values()) == len(points)
    assert rows["value"].is_finite().all()


def test_the_sample_has_every_kind() -> None:
    lines = (SAMPLES / "otlp-lines.jsonl").read_bytes().split(b"\n")
    batch = otlp.metrics_from_json(lines[1])
    assert batch.rejected == {"metric point whose value is no finite number": 1}
    rows: list[dict[str, Any]] = conform(model.METRICS, batch.tables["metrics"]).to_dicts()
    assert [(row["name"], row["kind"], row["value"], row["count"]) for row in rows] == [
        ("db.client.connection.count", "gauge", 4.0, None),  # an up-down counter is a level
        ("http.server.request.duration", "histogram", 2.5, 10),
        ("requests", "delta", 3.0, None),
    ]
    assert rows[0]["attributes"] == '{"pool":"main","state":"used"}'
    assert {(row["service"], row["instance"]) for row in rows} == {("shop", "shop-1")}
    assert {row["ts_ns"] for row in rows} == {1_700_000_000_000_000_000}


def test_what_the_resource_says_was_measured_keeps_series_apart() -> None:
    # As the collector's postgresql receiver has it: a resource for each table.
    def group(table: str) -> dict[str, Any]:
        names = {
            "service.instance.id": "db:5432",
            "host.name": "collector-1",
            "postgresql.database.name": "shop",
            "postgresql.table.name": table,
        }
        attributes = [{"key": key, "value": {"stringValue": text}} for key, text in names.items()]
        state = {"key": "state", "value": {"stringValue": "dead"}}
        point = {"timeUnixNano": "1700000000000000000", "asInt": "4", "attributes": [state]}
        rows = {"name": "postgresql.rows", "unit": "1", "sum": {"dataPoints": [point]}}
        return {
            "resource": {"attributes": attributes},
            "scopeMetrics": [{"metrics": [rows]}],
        }

    request = {"resourceMetrics": [group("public.cart"), group("public.item")]}
    batch = otlp.metrics_from_json(json.dumps(request).encode())
    assert batch.tables["metrics"]["attributes"] == [
        '{"postgresql.database.name":"shop","postgresql.table.name":"public.cart","state":"dead"}',
        '{"postgresql.database.name":"shop","postgresql.table.name":"public.item","state":"dead"}',
    ]
    assert batch.tables["metrics"]["instance"] == ["db:5432"] * 2


def test_points_of_a_resource_that_cannot_be_told_from_another_are_refused() -> None:
    point = {"timeUnixNano": "1700000000000000000", "asInt": "4"}
    rows = {"name": "postgresql.rows", "sum": {"dataPoints": [point, point, {"flags": 1}]}}
    bad = {"key": "postgresql.table.name", "value": {"bytesValue": "a"}}
    request = {
        "resourceMetrics": [
            {"resource": {"attributes": attributes}, "scopeMetrics": [{"metrics": [rows]}]}
            for attributes in ([bad], [])
        ]
    }
    batch = otlp.metrics_from_json(json.dumps(request).encode())
    assert batch.rows("metrics") == 2
    assert batch.rejected == {
        "metric point of a resource with an attribute that cannot be decoded": 2
    }
