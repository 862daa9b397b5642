"""A small shop whose faults are known: a gateway calls orders and users, orders a stock service."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import polars as pl

from perfkit import model
from tests.analysis.build import DEFAULTS, Memory

MS = 1_000_000
Span = dict[str, Any]
Change = Callable[[list[Span], random.Random], list[Span]]


def capture(
    requests: int = 120, *, seed: int = 1, start_ms: int = 0, change: Change | None = None
) -> Memory:
    """Return a capture; `change` may alter the spans of each request before they are stored.

    Spans have `name`, `service`, `kind`, `parent` (name), `own` (ms of their own before their
    children) and `after` (ms after them); times follow from these, one child after the other.
    """
    noise = random.Random(seed)
    rows: list[Span] = []
    for number in range(requests):
        spans = [dict(span, own=span["own"] * noise.uniform(0.9, 1.1)) for span in _REQUEST]
        if change is not None:
            spans = change(spans, noise)
        rows += _timed(spans, number + 1, start_ms + number * 1000)
    names = list(model.SPANS.schema)
    columns = {name: [row.get(name) for row in rows] for name in names}
    return Memory({"spans": pl.DataFrame(columns, schema=model.SPANS.schema)})


def _span(name: str, service: str, kind: str, parent: str | None, own: float) -> Span:
    return {"name": name, "service": service, "kind": kind, "parent": parent, "own": own}


_REQUEST = [
    _span("GET /cart", "gateway", "server", None, 2),
    _span("call users", "gateway", "client", "GET /cart", 1),
    _span("GET /user", "users", "server", "call users", 5),
    _span("SELECT users", "users", "client", "GET /user", 3),
    _span("call orders", "gateway", "client", "GET /cart", 1),
    _span("GET /orders", "orders", "server", "call orders", 8),
    _span("call stock", "orders", "client", "GET /orders", 1),
    _span("GET /stock", "stock", "server", "call stock", 4),
    _span("SELECT stock", "stock", "client", "GET /stock", 2),
]


def _timed(spans: list[Span], trace: int, start_ms: int) -> list[Span]:
    by_parent: dict[Any, list[Span]] = {}
    for span in spans:
        by_parent.setdefault(span["parent"], []).append(span)
    rows: list[Span] = []

    def place(span: Span, at: float, parent: int | None) -> float:
        number = len(rows) + 1
        row = {"trace_hi": 0, "trace_lo": trace, "span_id": trace * 1000 + number}
        row |= {"parent_id": parent, "start_ns": round(at * MS)} | DEFAULTS
        row |= {key: value for key, value in span.items() if key in model.SPANS.schema}
        rows.append(row)
        end = at + span["own"]
        for child in by_parent.get(span["name"], []):
            end = place(child, end, row["span_id"])
        row["duration_ns"] = round(end * MS) - row["start_ns"]
        return end

    for root in by_parent[None]:
        place(root, start_ms, None)
    return rows


def slower(name: str, by: float) -> Change:
    """Make a span's own time longer, by a factor."""

    def change(spans: list[Span], noise: random.Random) -> list[Span]:
        return [
            dict(span, own=span["own"] * by) if span["name"] == name else span for span in spans
        ]

    return change


def broken(name: str, *, share: float = 0.5) -> Change:
    """Let a span fail in a share of requests: it calls nothing, and all above it fail too."""

    def change(spans: list[Span], noise: random.Random) -> list[Span]:
        if noise.random() >= share:
            return spans
        parents = {span["name"]: span["parent"] for span in spans}
        failed, above = {name}, parents[name]
        while above is not None:
            failed.add(above)
            above = parents[above]
        below = {name}
        for span in spans:
            if span["parent"] in below:
                below.add(span["name"])
        gone = below - {name}
        return [
            dict(span, status="error") if span["name"] in failed else span
            for span in spans
            if span["name"] not in gone
        ]

    return change


def without(name: str) -> Change:
    """Leave a span out, and all below it."""

    def change(spans: list[Span], noise: random.Random) -> list[Span]:
        gone = {name}
        for span in spans:
            if span["parent"] in gone:
                gone.add(span["name"])
        return [span for span in spans if span["name"] not in gone]

    return change


def repeated(name: str, times: int) -> Change:
    """Repeat a leaf."""

    def change(spans: list[Span], noise: random.Random) -> list[Span]:
        return [
            again for span in spans for again in [span] * (times if span["name"] == name else 1)
        ]

    return change
