"""A limit on calls at once shows in the spans of a service that runs into it, and in no other."""

from __future__ import annotations

import heapq
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.waits.ceilings import _more_than, _stretches, ceilings
from tests.analysis.build import S, analyse

MS = 10**6
EPOCH = 1_700_000_000 * 10**9


def served(
    *, workers: int, limit: int | None, seconds: int = 20, work_ms: float = 5, call_ms: float = 10
) -> list[S]:
    """Simulate clients that send one request after another, each with three database calls.

    Work before a call needs nobody else; a call waits until fewer than `limit` are open.
    """
    rng = random.Random(workers * 100 + (limit or 0))
    spans: list[S] = []
    free = [0.0] * (limit or 10_000)
    heapq.heapify(free)
    # (time, client, step, start of the request, its span)
    events = [(rng.random() * 10, client, 0, 0.0, 0) for client in range(workers)]
    heapq.heapify(events)
    ids = iter(range(1, 10**9))
    while events:
        now, client, step, began, root = heapq.heappop(events)
        if step == 0:
            if now > seconds * 1000:
                continue
            began, root = now, next(ids)
        if step < 3:
            asked = now + rng.expovariate(1 / work_ms)
            start = max(asked, heapq.heappop(free))
            end = start + rng.expovariate(1 / call_ms)
            heapq.heappush(free, end)
            spans.append(
                S(next(ids), at(start), at(end), root, trace=root, kind="client", name="SELECT",
                  service="shop", pid=7, db_system="postgresql", db_statement="SELECT 1", peer="db")
            )  # fmt: skip
            heapq.heappush(events, (end, client, step + 1, began, root))
            continue
        done = now + 0.5
        spans.append(
            S(root, at(began), at(done), trace=root, kind="server", service="shop", pid=7,
              endpoint="GET /a")
        )  # fmt: skip
        heapq.heappush(events, (done + rng.expovariate(1 / 5), client, 0, 0.0, 0))
    return spans


def at(moment_ms: float) -> int:
    return EPOCH + round(moment_ms * MS)


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_a_pool_that_is_too_small_is_seen_without_metrics(limit: int) -> None:
    tables = analyse(served(workers=12, limit=limit))
    found = ceilings(tables)
    assert found["threshold"].unique().to_list() == [limit]
    assert found["resource"].unique().to_list() == ["db"]
    length = (found["end_ns"] - found["start_ns"]).sum()
    assert 12e9 < length < 21e9
    contention = tables.frame("contention").filter(kind="pool")
    assert contention["unit"].unique().to_list() == ["calls at once"]
    assert contention["confidence"].max() == 0.5
    assert contention["service"].unique().to_list() == ["shop"]


@pytest.mark.parametrize("workers", [1, 2, 6, 12, 40])
def test_calls_without_a_limit_are_not_taken_for_limited(workers: int) -> None:
    assert ceilings(analyse(served(workers=workers, limit=None))).is_empty()


@pytest.mark.parametrize("workers", [1, 4])
def test_no_more_workers_than_connections_is_no_limit(workers: int) -> None:
    assert ceilings(analyse(served(workers=workers, limit=workers))).is_empty()


def test_a_limit_that_is_hardly_reached_is_not_told() -> None:
    assert ceilings(analyse(served(workers=12, limit=10, work_ms=40))).is_empty()


def test_few_calls_prove_nothing() -> None:
    assert ceilings(analyse(served(workers=6, limit=1, seconds=0))).is_empty()
    assert ceilings(analyse([])).is_empty()


def test_sampled_spans_do_not_show_how_many_ran_at_once() -> None:
    spans = served(workers=12, limit=2)
    for span in spans:
        span.columns["adjusted_count"] = 4.0
    assert ceilings(analyse(spans)).is_empty()


@given(st.integers(1, 30), st.integers(0, 29), st.floats(0.0, 1.0))
def test_more_than_is_the_tail_of_the_binomial_distribution(
    requests: int, most: int, chance: float
) -> None:
    tail = sum(
        math.comb(requests, number) * chance**number * (1 - chance) ** (requests - number)
        for number in range(most + 1, requests + 1)
    )
    assert _more_than(most, requests, chance) == pytest.approx(tail, abs=1e-9)
    assert 0 <= _more_than(most, 100_000, chance) <= 1 + 1e-6


@given(st.lists(st.booleans()))
def test_stretches_are_runs_of_flags(flags: list[bool]) -> None:
    import numpy as np

    first, last = _stretches(np.array(flags, dtype=np.bool_))
    inside = {at for one, other in zip(first, last, strict=True) for at in range(one, other + 1)}
    assert inside == {at for at, flag in enumerate(flags) if flag}
    assert all(later > before + 1 for before, later in zip(last, first[1:], strict=False))
