"""Conditions that end a recording."""

from __future__ import annotations

import json
import os

import pytest

from perfkit.collect.latency import Latency
from perfkit.collect.limits import (
    Limits,
    TriggerWatch,
    parse_trigger,
    refuse_without_metrics,
    refuse_without_spans,
)
from perfkit.errors import UsageError
from perfkit.units import parse_size


def rows(*series: tuple[str, float, str | None]) -> bytes:
    names, values, attributes = zip(*series, strict=True)
    return json.dumps({"name": names, "value": values, "attributes": attributes}).encode()


@pytest.mark.parametrize(
    ("text", "name", "limit"),
    [
        ("p95 > 500ms", "p95", 500e6),
        (" p50>1s ", "p50", 1e9),
        ("cpu > 90%", "cpu", 0.9),
        ("memory > 1.5 GiB", "memory", 1.5 * 2**30),
    ],
)
def test_conditions_are_read(text: str, name: str, limit: float) -> None:
    trigger = parse_trigger(text)
    assert (trigger.name, trigger.limit) == (name, pytest.approx(limit))


@pytest.mark.parametrize(
    "text",
    ["", "p95", "p95 < 1s", "p94 > 1s", "p95 > soon", "cpu > 0.9", "cpu > x%", "memory > much",
     "p95 > 0s", "cpu > nan%", "disk > 5%", "p95 > 1s; rm"],
)  # fmt: skip
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--trigger"):
        parse_trigger(text)


def test_what_has_nothing_to_look_at_is_refused() -> None:
    for limits, sampling in (
        (Limits(trigger=parse_trigger("p95 > 1s")), {}),
        (Limits(max_spans=5), {}),
        (Limits(), {"head_ratio": 0.5}),
        (Limits(), {"tail_ratio": 0.5}),
    ):
        with pytest.raises(UsageError, match="about spans"):
            refuse_without_spans(limits, sampling)
    refuse_without_spans(Limits(max_bytes=5, trigger=parse_trigger("cpu > 5%")), {})
    refuse_without_metrics(Limits(trigger=parse_trigger("p95 > 1s")))
    with pytest.raises(UsageError, match="--no-metrics"):
        refuse_without_metrics(Limits(trigger=parse_trigger("cpu > 5%")))


def test_a_percentile_needs_requests_enough() -> None:
    latency = Latency()
    watch = TriggerWatch(parse_trigger("p95 > 500ms"), latency.recent_quantile)
    latency.add([900_000_000] * 19)
    assert watch.fired() is None
    latency.add([900_000_000])
    fired = watch.fired()
    assert fired is not None
    assert fired.startswith("p95 > 500ms: p95 was 900 ms")
    latency.add([1000] * 1000)
    assert watch.fired() is None


def test_cpu_is_a_mean_of_all_cores_and_all_processes() -> None:
    cores = os.cpu_count() or 1
    watch = TriggerWatch(parse_trigger("cpu > 50%"), Latency().recent_quantile)
    busy = rows(
        ("process.memory.usage", 1.0, None),
        ("process.cpu.utilization", 0.5 * cores, None),
        ("process.cpu.utilization", 0.4 * cores, None),
        ("system.cpu.utilization", 0.1, None),
    )
    for _ in range(9):
        watch.see(busy)
        assert watch.fired() is None
    watch.see(busy)
    assert watch.fired() == "cpu > 50%: cpu was 90 %"


def test_memory_is_of_the_machine_when_no_process_is_recorded() -> None:
    watch = TriggerWatch(parse_trigger("memory > 1KiB"), Latency().recent_quantile)
    assert watch.fired() is None
    watch.see(rows(("system.memory.usage", 1024.0, None), ("system.memory.usage", 9.0, "{}")))
    assert watch.fired() is None
    watch.see(rows(("system.memory.usage", 2048.0, None)))
    assert watch.fired() == "memory > 1KiB: memory was 2 KiB"


@pytest.mark.parametrize(
    ("text", "value"), [("5", 5), ("2 GiB", 2 << 30), ("1.5k", 1536), ("10MB", 10 << 20)]
)
def test_sizes_are_read(text: str, value: int) -> None:
    assert parse_size(text) == value


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1.2.3 MB", "5 apples"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)
