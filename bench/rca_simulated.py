"""Labelled faults of simulated systems, beside the real ones: more kinds, and known to be visible.

A system is a layered call graph of 5 to 40 services, deep (shop-like) or wide (fan-out), with one
three operations each. Both sides have lognormal times, their own mix of endpoints, and lost spans.
The one side has a fault. Everything follows from the seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import polars as pl

SHAPES = ((5, 3), (12, 4), (12, 2), (40, 5), (40, 3))
"""Services and layers; few layers are a fan-out."""
FAULTS = (
    *("cpu", "network", "lock", "early return", "exception"),
    *("missing call", "new call", "retry storm"),
)
SEEDS = 3
REQUESTS = (80, 400)
_LOST = 0.02
_SHARE = 0.4
"""Share of the requests that a fault of behaviour hits."""
_MS = 1_000_000


class Case(NamedTuple):
    """A fault, and the spans before and during it."""

    fault: dict[str, Any]
    before: pl.DataFrame
    during: pl.DataFrame


@dataclass
class Operation:
    """What a service does for one kind of call."""

    service: str
    name: str
    median_ms: float
    calls: list[Operation] = field(default_factory=list)


@dataclass
class _Fault:
    kind: str
    operation: Operation
    other: Operation


def cases() -> Iterator[Case]:
    """Yield every fault in every shape, with few and with many requests."""
    for services, layers in SHAPES:
        for kind in FAULTS:
            for seed in range(SEEDS):
                noise = random.Random(f"{services} {layers} {kind} {seed}")
                layered = system(services, layers, noise)
                fault = _fault(kind, layered, noise)
                requests = REQUESTS[seed % len(REQUESTS)]
                sides = [Run(layered[0], noise, one).spans(requests) for one in (None, fault)]
                yield Case({"type": kind, "service": fault.operation.service}, *sides)


def system(services: int, layers: int, noise: random.Random) -> list[list[Operation]]:
    """Return operations by layer, each with what it calls in the next one."""
    layered: list[list[Operation]] = [[] for _ in range(layers)]
    for number in range(services):
        layer = number if number < layers else noise.randrange(1, layers)
        for one in range(3 if layer == 0 else noise.randint(1, 3)):
            median = noise.uniform(0.5, 10)
            layered[layer].append(Operation(f"s{number}", f"GET /s{number}/{one}", median))
    for layer in range(layers - 1):
        for operation in layered[layer]:
            below = layered[layer + 1]
            operation.calls = noise.sample(below, min(len(below), noise.randint(1, 4)))
    return layered


def _fault(kind: str, layered: list[list[Operation]], noise: random.Random) -> _Fault:
    """Choose an operation that is called (from the second layer on where the fault allows it)."""
    called = reached(layered[0])
    calling = kind in ("early return", "missing call", "new call", "retry storm")
    able = [one for one in called if one not in layered[0] and (one.calls or not calling)]
    operation = noise.choice(able or [one for one in called if one.calls])
    outside = [one for one in layered[-1] if one not in operation.calls]
    other = noise.choice(operation.calls if kind == "missing call" else outside or layered[-1])
    return _Fault(kind, operation, other)


def reached(entries: list[Operation]) -> list[Operation]:
    """Return the entries and all that they call."""
    found: list[Operation] = []
    ahead = list(entries)
    while ahead:
        one = ahead.pop()
        if one not in found:
            found.append(one)
            ahead += one.calls
    return found


class Run:
    """One side: requests in turn, their spans with times."""

    lost = _LOST
    """Share of the spans below an entry that never arrive."""

    def __init__(
        self, entries: list[Operation], noise: random.Random, fault: _Fault | None = None
    ) -> None:
        self._entries, self._noise, self._fault = entries, noise, fault
        self._rows: list[tuple[Any, ...]] = []
        self._trace = self._number = 0

    def spans(self, requests: int, mix: list[float] | None = None) -> pl.DataFrame:
        """Return the spans of so many requests, to the endpoints in these proportions."""
        mix = mix or [self._noise.uniform(0.2, 1) for _ in self._entries]
        for self._trace in range(1, requests + 1):
            entry = self._noise.choices(self._entries, mix)[0]
            self._serve(entry, self._trace * 10_000.0, None)
        names = ("trace_id", "span_id", "parent_id", "service", "name", "start_ns", "end_ns")
        frame = pl.DataFrame(self._rows, schema=[*names, "span_kind", "status"], orient="row")
        return frame.sort("trace_id", "start_ns")

    def _hit(self, kind: str, operation: Operation) -> bool:
        fault = self._fault
        return fault is not None and fault.kind == kind and fault.operation is operation

    def _serve(self, operation: Operation, at: float, parent: int | None) -> tuple[float, bool]:
        """Add the spans of an operation and below; return its end and whether it failed."""
        fault, noise = self._fault, self._noise
        self._number += 1
        span = self._number
        own = self._own_ms(operation)
        struck = noise.random() < _SHARE
        if self._hit("lock", operation) and struck:
            own += 20 * noise.lognormvariate(0, 0.5)
        calls, failed = list(operation.calls), False
        if self._hit("exception", operation) and struck:
            calls, failed = calls[: len(calls) // 2], True
        if self._hit("early return", operation) and struck:
            calls, own = [], own / 2
        if fault and self._hit("missing call", operation) and struck:
            calls = [one for one in calls if one is not fault.other]
        if fault and self._hit("new call", operation) and struck:
            calls.append(fault.other)
        if self._hit("retry storm", operation) and struck:
            calls = [one for one in calls for _ in range(4)]
        end = at + own / 2
        for callee in calls:
            end, broke = self._call(operation, callee, end, span)
            failed |= broke
            if broke:
                break
        end += own / 2
        self._add(span, parent, operation.service, operation.name, at, end, "server", failed)
        return end, failed

    def _call(
        self, caller: Operation, callee: Operation, at: float, parent: int
    ) -> tuple[float, bool]:
        self._number += 1
        span = self._number
        way = self._way_ms(caller, callee)
        if self._refuses(caller, callee):
            end, failed = at + way, True
        else:
            end, failed = self._serve(callee, at + way, span)
            end += way
        self._add(span, parent, caller.service, f"call {callee.name}", at, end, "client", failed)
        return end, failed

    def _own_ms(self, operation: Operation) -> float:
        own = operation.median_ms * self._noise.lognormvariate(0, 0.3)
        fault = self._fault
        if fault and fault.kind == "cpu" and fault.operation.service == operation.service:
            own *= 3
        return own

    def _way_ms(self, caller: Operation, callee: Operation) -> float:
        """Return how long a message between two services takes."""
        way = 0.2 * self._noise.lognormvariate(0, 0.4)
        fault = self._fault
        if fault and fault.kind == "network" and fault.operation.service == callee.service:
            way += 10 * self._noise.lognormvariate(0, 0.3)
        return way

    def _refuses(self, caller: Operation, callee: Operation) -> bool:
        """Say whether a call breaks before it arrives."""
        return False

    def _add(
        self, span: int, parent: int | None, service: str, name: str,
        at: float, end: float, kind: str, failed: bool,
    ) -> None:  # fmt: skip
        if parent is not None and self._noise.random() < self.lost:
            return
        times = round(at * _MS), round(end * _MS)
        status = "error" if failed else "unset"
        self._rows.append((self._trace, span, parent, service, name, *times, kind, status))
