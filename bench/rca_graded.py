"""Faults of graded strength in simulated systems, and faults that are seen badly.

Types are those that RCAEval injects (Pham et al., 2024), each modelled by what it does to spans; a
call that is hit takes `factor` times as long as the operation that is called usually does itself.
Strong faults are then seen through what real captures have: other traffic, few samples, lost spans,
clocks that differ. Nothing is a side on which nothing was changed.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import polars as pl

from bench.rca_simulated import Case, Operation, Run, reached, system

SHAPES = ((8, 3), (12, 4), (40, 5))
SYSTEMS = 4
REQUESTS = 200
TYPES = ("cpu", "mem", "disk", "delay", "loss", "socket")
FACTORS = (1.2, 1.5, 2.0, 3.0)
SHARES = (0.05, 0.2, 1.0)
SEEN = (
    *("less traffic", "other mix", "sampled 1 in 100", "lost spans", "clock skew"),
    *("one of two instances", "a store without spans", "calls all named alike"),
)
STRONG = 3.0
_PAUSE = 20
"""A process that lacks memory stops for so many requests at a time."""
_TIMES_OUT = 0.1
_REFUSES = 0.3


@dataclass(frozen=True)
class Fault:
    """What is wrong with a service, by how much, in which share of its calls."""

    kind: str
    service: str
    factor: float
    share: float
    operations: frozenset[str] = frozenset()
    """Those that are hit, for a fault that does not hit all."""
    one_instance: bool = False
    """All calls of one instance are hit, none of the other."""


class Graded(Run):
    """One side, with a fault of some strength."""

    def __init__(
        self, entries: list[Operation], noise: random.Random, graded: Fault | None
    ) -> None:
        super().__init__(entries, noise)
        self._graded = graded
        self._instance: dict[int, int] = {}

    def instances(self, spans: pl.DataFrame) -> pl.DataFrame:
        """Say which of its service's two instances each span is of."""
        found = [
            self._instance.get(span, self._instance.get(parent, 0))
            for span, parent in spans.select(
                "span_id", pl.col("parent_id").fill_null(0)
            ).iter_rows()
        ]
        return spans.with_columns(instance=pl.Series(found).cast(pl.String))

    def _own_ms(self, operation: Operation) -> float:
        own = super()._own_ms(operation)
        self._instance[self._number] = self._noise.randrange(2)
        return own + (
            self._more_ms(operation) if self._hits(operation, "cpu", "mem", "disk") else 0
        )

    def _way_ms(self, caller: Operation, callee: Operation) -> float:
        way = super()._way_ms(caller, callee)
        # What leaves a process late are its answers and its own questions.
        if self._hits(callee, "delay", "loss", "socket") or self._hits(caller, "delay", "loss"):
            way += self._more_ms(callee)
        return way

    def _refuses(self, caller: Operation, callee: Operation) -> bool:
        if self._hits(callee, "loss"):
            return self._noise.random() < _TIMES_OUT
        return self._hits(callee, "socket") and self._noise.random() < _REFUSES

    def _hits(self, operation: Operation, *kinds: str) -> bool:
        fault = self._graded
        if fault is None or fault.kind not in kinds or operation.service != fault.service:
            return False
        if fault.operations and operation.name not in fault.operations:
            return False
        if fault.kind == "mem" and fault.share < 1:
            return self._trace // _PAUSE % round(1 / fault.share) == 0
        if fault.one_instance:
            return self._instance[self._number] == 1
        return self._noise.random() < fault.share

    def _more_ms(self, operation: Operation) -> float:
        assert self._graded is not None
        more = (self._graded.factor - 1) * operation.median_ms
        spread = 1.0 if self._graded.kind == "loss" else 0.3
        return more * self._noise.lognormvariate(0, spread)


class Place(NamedTuple):
    """A simulated system, and where its fault is."""

    number: int
    entries: list[Operation]
    service: str
    operations: frozenset[str]
    """Those of its operations that use its disk."""
    store: str
    """A service of the last layer: may stand for one that sends no spans."""

    def side(self, about: str, fault: Fault | None, requests: int = REQUESTS) -> pl.DataFrame:
        """Return the spans of one side, always the same ones."""
        return self.run(about, fault).spans(requests)

    def run(self, about: str, fault: Fault | None) -> Graded:
        """Return what makes the spans of one side."""
        return Graded(self.entries, random.Random(f"{self.number} {about}"), fault)

    def fault(self, kind: str, factor: float, share: float) -> Fault:
        """Return a fault of the place's service."""
        return Fault(
            kind, self.service, factor, share, self.operations if kind == "disk" else frozenset()
        )


def places() -> Iterator[Place]:
    """Yield the systems."""
    for number in range(SYSTEMS):
        noise = random.Random(f"graded {number}")
        layered = system(*SHAPES[number % len(SHAPES)], noise)
        called = [one for one in reached(layered[0]) if one not in layered[0]]
        service = noise.choice(called).service
        own = sorted(one.name for one in called if one.service == service)
        store = noise.choice([one for one in called if not one.calls]).service
        yield Place(number, layered[0], service, frozenset(own[: (len(own) + 1) // 2]), store)


def graded() -> Iterator[tuple[Fault, Case]]:
    """Yield faults of every type, strength and share in every system."""
    for place in places():
        before = place.side("before", None)
        for kind in TYPES:
            for factor, share in itertools.product(FACTORS, SHARES):
                fault = place.fault(kind, factor, share)
                during = place.side(f"{kind} {factor} {share}", fault)
                yield fault, _case(kind, fault.service, before, during)


def nothing() -> Iterator[Case]:
    """Yield sides between which nothing was changed but the mix of requests."""
    for place in places():
        for again in range(4):
            yield _case("nothing", "", place.side("before", None), place.side(f"{again}", None))


def badly_seen() -> Iterator[Case]:
    """Yield strong faults, each seen through something that makes it hard."""
    for place in places():
        for how, kind in itertools.product(SEEN, ("cpu", "delay")):
            yield _seen(place, how, kind)


def _seen(place: Place, how: str, kind: str) -> Case:
    fault = place.fault(kind, STRONG, 1.0)
    requests = [REQUESTS, REQUESTS]
    mixes: list[list[float] | None] = [None, None]
    if how == "one of two instances":
        fault = replace(fault, kind="cpu", one_instance=True)
    if how == "a store without spans":
        fault = replace(fault, service=place.store)
    if how == "less traffic":
        requests[1] //= 8
    if how == "sampled 1 in 100":
        requests = [40, 40]
    if how in ("other mix", "calls all named alike"):
        mixes = [[9.0, 1.0, 1.0], [1.0, 1.0, 9.0]]
    sides = []
    for number, one in enumerate((None, fault)):
        run = place.run(f"{how} {kind} {number}", one)
        run.lost = 0.2 if how == "lost spans" else Run.lost
        spans = run.instances(run.spans(requests[number], mixes[number]))
        if how == "sampled 1 in 100":
            spans = spans.with_columns(adjusted_count=100.0)
        if how == "clock skew":
            spans = _skewed(spans, random.Random(f"{place.number} {number}"))
        if how == "calls all named alike":
            called = pl.when(pl.col("span_kind") == "client").then(pl.lit("HTTP GET"))
            spans = spans.with_columns(name=called.otherwise("name"))
        if how == "a store without spans":
            spans = _silent(spans, place.store)
        sides.append(spans)
    return _case(how, _owner(sides[0], fault.service), *sides)


def _case(kind: str, service: str, before: pl.DataFrame, during: pl.DataFrame) -> Case:
    return Case({"type": kind, "service": service}, before, during)


def _skewed(spans: pl.DataFrame, noise: random.Random) -> pl.DataFrame:
    """Set the clock of each service wrong, by up to 50 ms."""
    services = spans["service"].unique().sort().to_list()
    wrong = {service: noise.randrange(-50_000_000, 50_000_000) for service in services}
    shift = pl.col("service").replace_strict(wrong)
    return spans.with_columns(pl.col("start_ns") + shift, pl.col("end_ns") + shift)


def _silent(spans: pl.DataFrame, store: str) -> pl.DataFrame:
    """Take away the spans of a service; those of its callers say that they called a database."""
    calls = (pl.col("span_kind") == "client") & pl.col("name").str.starts_with(
        f"call GET /{store}/"
    )
    return spans.filter(pl.col("service") != store).with_columns(
        db_system=pl.when(calls).then(pl.lit("postgresql")),
        peer=pl.when(calls).then(pl.lit(store)),
    )


def _owner(spans: pl.DataFrame, service: str) -> str:
    """Return who has to be named for a service: its only caller where it sends no spans itself."""
    if service in spans["service"]:
        return service
    callers = spans.filter(peer=service)["service"].unique()
    return service if len(callers) != 1 else str(callers[0])
