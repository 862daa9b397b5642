"""Transactions of another product (its event JSON) as rows of `spans`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_ROOT = 1
_PLAUSIBLE_S = 1.6e9


def load(path: Path) -> dict[str, Any]:
    """Return the case: `detector`, `expected`, `settings`, `event`."""
    case: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return case


def spans(event: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the root and the spans. An id that several spans share is given to the first alone."""
    trace = event.get("contexts", {}).get("trace", {})
    root = trace.get("span_id") or event["spans"][0]["parent_span_id"]
    numbers = {root: _ROOT}
    rows: list[dict[str, Any]] = []
    for span in event["spans"]:
        known = span["span_id"] in numbers
        number = len(rows) + 2
        if not known:
            numbers[span["span_id"]] = number
        rows.append(_row(span, number))
    for row, span in zip(rows, event["spans"], strict=True):
        row["parent_id"] = numbers.get(span["parent_span_id"], _ROOT)
    start = min([row["start_ns"] for row in rows] + _times(event)[:1])
    end = max([row["start_ns"] + row["duration_ns"] for row in rows] + _times(event)[1:])
    name = event.get("transaction") or "transaction"
    top = {"span_id": _ROOT, "name": name, "endpoint": name, "kind": "server"}
    url = (event.get("request") or {}).get("url")
    if url:
        top |= {"http_method": "POST", "attributes": json.dumps({"url.full": url})}
    made_by = {"scope": event.get("sdk", {}).get("name")}
    everything = [{**top, "start_ns": start, "duration_ns": end - start}, *rows]
    return [made_by | row for row in everything]


def whole(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event that was cut down for a test with all that a real one has.

    That is: a root, times of its own, none of 1970, and an id for each span.
    """
    spans = [dict(span) for span in event["spans"]]
    first = min(span["start_timestamp"] for span in spans)
    later = 0.0 if first > _PLAUSIBLE_S else _PLAUSIBLE_S
    known: set[str] = set()
    for number, span in enumerate(spans):
        span["start_timestamp"] += later
        span["timestamp"] += later
        if span["span_id"] in known:
            span["span_id"] = f"{number:016x}"
        known.add(span["span_id"])
    root = {"trace_id": spans[0]["trace_id"], "span_id": spans[0]["parent_span_id"]}
    filled = {
        "transaction": "transaction",
        "contexts": {"trace": root},
        "start_timestamp": first + later,
        "timestamp": max(span["timestamp"] for span in spans),
    }
    return {**filled, **event, "spans": spans}


def _times(event: dict[str, Any]) -> list[int]:
    both = (event.get("start_timestamp"), event.get("timestamp"))
    return [_ns(one) for one in both] if all(isinstance(one, float | int) for one in both) else []


def _ns(seconds: float) -> int:
    return round(seconds * 1e6) * 1000


def _row(span: dict[str, Any], number: int) -> dict[str, Any]:
    op, description = span.get("op") or "", span.get("description") or ""
    data = span.get("data") or {}
    start, end = _ns(span["start_timestamp"]), _ns(span["timestamp"])
    row = {"span_id": number, "name": op or "span", "start_ns": start, "duration_ns": end - start}
    if op.startswith("db"):
        system = data.get("db.system") if isinstance(data, dict) else None
        row |= {"kind": "client", "db_statement": description}
        row["db_system"] = system or ("redis" if "redis" in op else "sql")
    elif op.startswith("http"):
        method, _, url = description.partition(" ")
        row |= {"kind": "client", "http_method": method, "name": description.partition("?")[0]}
        row |= {"peer": urlsplit(url).hostname or "upstream"}
        known = {"url": url} | (data if isinstance(data, dict) else {})
        row |= {"attributes": json.dumps(known)}
    return row
