"""When a recording has enough: size, spans, or something that happened (`--trigger`)."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from perfkit.collect.latency import Latency
from perfkit.collect.ring import Bounds
from perfkit.errors import UsageError
from perfkit.units import duration, parse_duration, parse_size, percent, size

if TYPE_CHECKING:
    from perfkit.collect.intake import Intake
    from perfkit.collect.store import Store

_CPU_WINDOW_S = 10
_FORGET_EVERY_S = 5.0
_MIN_REQUESTS = 20
"""Fewer requests in a window say nothing about a percentile. Our own number."""

_SYNTAX = re.compile(r"\s*(p\d\d|cpu|memory)\s*>\s*(\S.*?)\s*")
_SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


LimitReason = Literal["trigger", "size limit", "span limit"]


@dataclass(frozen=True)
class Trigger:
    """A condition: `name` over `limit`, in ns, bytes, or as a share of all cores."""

    name: str
    limit: float
    text: str

    @property
    def needs_spans(self) -> bool:
        """Whether it looks at requests."""
        return self.name in _SHARES

    @property
    def share(self) -> float:
        """The percentile that it looks at, as a share."""
        return _SHARES[self.name]

    def show(self, value: float) -> str:
        """Write a value of its kind."""
        if self.needs_spans:
            return duration(value)
        return percent(value) if self.name == "cpu" else size(value)


def parse_trigger(text: str) -> Trigger:
    """Read `p95 > 500ms`, `cpu > 90%` or `memory > 2GiB`. Raises UsageError."""
    match = _SYNTAX.fullmatch(text)
    hint = "write 'p95 > 500ms' (p50, p90, p95, p99), 'cpu > 90%' or 'memory > 2GiB'"
    if match is None or not (match[1] in _SHARES or match[1] in ("cpu", "memory")):
        raise UsageError(f"--trigger {text!r} is not a condition", hint=hint)
    name, value = match[1], match[2]
    try:
        limit: float
        if name == "cpu":
            limit = float(value.removesuffix("%")) / 100 if value.endswith("%") else -1.0
        else:
            limit = parse_size(value) if name == "memory" else parse_duration(value)
        if not 0 < limit < float("inf"):
            raise ValueError
    except ValueError:
        raise UsageError(f"--trigger: {value!r} is no limit for {name}", hint=hint) from None
    return Trigger(name, limit, f"{name} > {value}")


class TriggerWatch:
    """Looks whether a trigger's condition holds.

    Percentiles are of the requests that came in the last minute. CPU, a share of all cores and the
    mean of ten seconds, and memory are of the recorded processes together, or else of the machine.
    """

    def __init__(self, trigger: Trigger, recent: Callable[[float, int], int | None]) -> None:
        """`recent` returns a percentile of recent requests: `Latency.recent_quantile`."""
        self._trigger = trigger
        self._recent = recent
        self._lock = threading.Lock()
        self._cpu: deque[float] = deque(maxlen=_CPU_WINDOW_S)
        self._memory: float | None = None

    def see(self, body: bytes) -> None:
        """Look at rows of the table `metrics` as they are recorded, once a second."""
        rows: dict[str, list[Any]] = json.loads(body)
        whole: Counter[str] = Counter()
        columns = ("name", "value", "attributes")
        for name, value, attributes in zip(*(rows[column] for column in columns), strict=True):
            if attributes is None:
                whole[name] += value
        with self._lock:
            if "process.memory.usage" in whole:
                self._memory = whole["process.memory.usage"]
                self._cpu.append(whole["process.cpu.utilization"] / (os.cpu_count() or 1))
            else:
                self._memory = whole["system.memory.usage"]
                self._cpu.append(whole["system.cpu.utilization"])

    def fired(self) -> str | None:
        """Say what happened, once the condition holds."""
        value = self._value()
        if value is None or value <= self._trigger.limit:
            return None
        shown = self._trigger.show(value)
        return f"{self._trigger.text}: {self._trigger.name} was {shown}"

    def _value(self) -> float | None:
        if self._trigger.needs_spans:
            return self._recent(self._trigger.share, _MIN_REQUESTS)
        with self._lock:
            if self._trigger.name == "memory":
                return self._memory
            full = len(self._cpu) == _CPU_WINDOW_S
            return sum(self._cpu) / _CPU_WINDOW_S if full else None


@dataclass(frozen=True)
class Limits:
    """How much a recording may hold. With `ring_ns` the oldest goes, else the recording ends."""

    ring_ns: int | None = None
    max_bytes: int | None = None
    max_spans: int | None = None
    trigger: Trigger | None = None


def refuse_without_spans(limits: Limits, sampling: Mapping[str, float]) -> None:
    """Raise UsageError for what makes no sense when no spans are received."""
    about_spans = {
        "--sampling-ratio": "head_ratio" in sampling,
        "--tail-ratio": "tail_ratio" in sampling,
        "--max-spans": limits.max_spans is not None,
        "--trigger": limits.trigger is not None and limits.trigger.needs_spans,
    }
    for option, given in about_spans.items():
        if given:
            raise UsageError(f"{option} is about spans", hint="receive some: --otlp")


def refuse_without_metrics(limits: Limits) -> None:
    """Raise UsageError for a trigger that looks at metrics which are not measured."""
    if limits.trigger is not None and not limits.trigger.needs_spans:
        raise UsageError(f"--trigger {limits.trigger.text!r} needs what --no-metrics leaves out")


class LimitWatch:
    """Looks whether a recording has enough, and keeps a ring within its bounds."""

    def __init__(self, limits: Limits, store: Store, intake: Intake | None) -> None:
        self._limits = limits
        self._store = store
        self._intake = intake
        self._trigger: TriggerWatch | None = None
        self._forget_at_s = 0.0
        self.happened: str | None = None
        """What made the trigger fire."""
        if limits.trigger is not None:
            latency = intake.latency if intake is not None else Latency()
            self._trigger = TriggerWatch(limits.trigger, latency.recent_quantile)

    def put_metrics(self, body: bytes) -> bool:
        """Look at rows of metrics and pass them on to the store."""
        if self._trigger is not None:
            self._trigger.see(body)
        return self._store.put_metrics(body)

    def reached(self) -> LimitReason | None:
        """Say why the recording is to end, if so; to be called about once a second."""
        if self._trigger is not None:
            self.happened = self._trigger.fired()
            if self.happened is not None:
                return "trigger"
        limits = self._limits
        if limits.ring_ns is not None:
            if time.monotonic() >= self._forget_at_s:
                self._forget_at_s = time.monotonic() + _FORGET_EVERY_S
                bounds = Bounds(limits.ring_ns, limits.max_bytes, limits.max_spans)
                self._store.compactor.forget(bounds)
            return None
        if limits.max_bytes is not None and self._store.size_bytes() >= limits.max_bytes:
            return "size limit"
        if limits.max_spans is not None and self._intake is not None:
            spans = self._intake.received["spans"] - self._store.compactor.sampled_out
            if spans >= limits.max_spans:
                return "span limit"
        return None
