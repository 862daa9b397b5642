"""Attributes as OTLP JSON writes them, and those of a span put together again from its columns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from perfkit import semconv

_INTEGER_LIMIT = 2**63
_THRESHOLDS = 2**56
"""`th` of a trace state counts in so many parts."""
_SAME_COUNT = 1e-9


def key_values(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return attributes as a list of KeyValue."""
    return [{"key": key, "value": any_value(value)} for key, value in attributes.items()]


def any_value(value: Any) -> dict[str, Any]:
    """Return an AnyValue. Integers are text, as protobuf's JSON wants 64-bit ones."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        if -_INTEGER_LIMIT <= value < _INTEGER_LIMIT:
            return {"intValue": str(value)}
        return {"doubleValue": float(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [any_value(one) for one in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": key_values(value)}}
    return {} if value is None else {"stringValue": str(value)}


def span_attributes(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a row of `spans`: the others, and those that filled columns.

    Endpoint and peer are added where the other attributes would not give them again.
    """
    attributes: dict[str, Any] = msgspec.json.decode(row["attributes"]) if row["attributes"] else {}
    for column, names in semconv.PROMOTED.items():
        # The process belongs to the resource.
        if row[column] is not None and column != "pid":
            attributes[names[0]] = row[column]
    if row["endpoint"] is not None and semconv.endpoint(attributes, row["kind"]) != row["endpoint"]:
        attributes[semconv.ROUTE[0]] = row["endpoint"].removeprefix(f"{row['http_method']} ")
    if row["peer"] is not None and semconv.peer(attributes, row["kind"]) != row["peer"]:
        attributes[semconv.PEER_NAME[0]] = row["peer"]
    return attributes


def trace_state(attributes: dict[str, Any], adjusted_count: float | None) -> str:
    """Take the trace state out of a span's attributes; it says what the span stands for.

    https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/
    """
    state = str(attributes.pop("w3c.tracestate", "") or "")
    count = adjusted_count or 1.0
    if math.isclose(semconv.adjusted_count(attributes, state), count, rel_tol=_SAME_COUNT):
        return state
    threshold = min(max(round(_THRESHOLDS * (1 - 1 / count)), 0), _THRESHOLDS - 1)
    digits = f"{threshold:014x}".rstrip("0") or "0"
    others = [one.strip() for one in state.split(",") if one.strip()[:3] not in ("", "ot=")]
    return ",".join([f"ot=th:{digits}", *others])
