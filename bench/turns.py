"""Two services that take turns under one load, so that nothing but what differs is measured.

The same calls, drawn before, go to one service and then to the other, slice by slice in the order
A B B A: what drifts on the machine meets both alike. Only one of them works at a time.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import httpx

from perfkit.demo.load import TIMEOUT_S, Call, Scenario, plan

_WARM_UP_CALLS = 3
_REST_S = 1.0
"""Between two slices, so that nothing of one is left in the next."""


@dataclass(frozen=True)
class Slice:
    """One turn of one service."""

    side: str
    number: int
    """The same for the turns of both sides that had the same calls."""
    start_ns: int
    end_ns: int
    latency_s: Mapping[str, Sequence[float]]
    """Label of the calls -> what the client waited, from when a call was due."""


@dataclass(frozen=True)
class Turns:
    """How long a slice lasts, how many there are for each side, and the scenarios a second."""

    scenarios: Sequence[Scenario]
    slices: int = 12
    slice_s: float = 4.0
    rate: float = 2.5
    seed: int = 1


def take_turns(urls: Mapping[str, str], turns: Turns) -> list[dict[str, object]]:
    """Send the load to the services in turn; return the slices as JSON objects.

    `urls` has the sides by name, two of them.
    """
    return [asdict(one) for one in asyncio.run(_take_turns(urls, turns))]


async def _take_turns(urls: Mapping[str, str], turns: Turns) -> list[Slice]:
    first, second = urls
    done: list[Slice] = []
    for side in urls:
        # Connections, pools and imports of the first calls are no part of what is compared.
        first_calls = list(itertools.islice(_plan(turns, 0, 60.0), _WARM_UP_CALLS))
        await _send(urls[side], [(0.0, call) for _, call in first_calls])
    for number in range(turns.slices):
        calls = list(_plan(turns, number, turns.slice_s))
        order = (first, second) if number % 2 == 0 else (second, first)
        for side in order:
            await asyncio.sleep(_REST_S)
            start_ns = time.time_ns()
            waited = await _send(urls[side], calls)
            done.append(Slice(side, number, start_ns, time.time_ns(), waited))
    return done


def _plan(turns: Turns, number: int, duration_s: float) -> Iterator[tuple[float, Call]]:
    calls_each = plan_rate(turns)
    return plan(duration_s, calls_each, turns.seed * 1000 + number, turns.scenarios)


def plan_rate(turns: Turns) -> float:
    """Return the calls a second of the turns' scenarios."""
    deck = [one for one in turns.scenarios for _ in range(one.share)]
    calls = sum(len(each.calls(random.Random(0))) for each in deck)
    return turns.rate * calls / len(deck)


async def _send(url: str, calls: Sequence[tuple[float, Call]]) -> dict[str, list[float]]:
    waited: defaultdict[str, list[float]] = defaultdict(list)

    async def send(call: Call, due: float) -> None:
        headers = {"authorization": f"Bearer {call.key}"}
        await client.request(call.method, call.path, json=call.body, headers=headers)
        waited[call.label].append(time.perf_counter() - due)

    async with (
        httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client,
        asyncio.TaskGroup() as group,
    ):
        started = time.perf_counter()
        for at_s, call in calls:
            due = started + at_s
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(send(call, due))
    return dict(waited)


@contextmanager
def before_all_others() -> Iterator[bool]:
    """Let this process, and what it starts meanwhile, run before other work on the machine.

    Gives whether that is allowed. What runs so must leave the cores idle for much of the time.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
