"""A service's visitors: an open load, drawn before, dealt from a shuffled deck."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Sequence

import httpx

Visit = tuple[int, int, Callable[[random.Random], str]]
"""How often a visit comes in a deck, how many requests it sends at once, and their address."""

_BUSY = 3
"""How much more often the endpoint with the problem is visited, so that it matters."""


async def visit(
    url: str,
    visits: Sequence[Visit],
    busy: Collection[str],
    duration_s: float,
    visits_per_s: float,
    seed: int,
) -> int:
    """Send the load, more of it to the paths `busy`; return how many were answered well."""
    chance = random.Random(seed)
    deck = [
        visit
        for visit in visits
        for _ in range(visit[0] * (_BUSY if visit[2](chance).split("?")[0] in busy else 1))
    ]
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=url, timeout=30, limits=limits, trust_env=False
    ) as client:
        sent: list[asyncio.Task[httpx.Response]] = []
        loop = asyncio.get_running_loop()
        started, at_s = loop.time(), 0.0
        while at_s < duration_s:
            chance.shuffle(deck)
            for _, together, address in deck:
                at_s += chance.expovariate(visits_per_s)
                if at_s >= duration_s:
                    break
                await asyncio.sleep(started + at_s - loop.time())
                calls = [client.get(address(chance)) for _ in range(together)]
                sent += [asyncio.create_task(call) for call in calls]
        answers = await asyncio.gather(*sent, return_exceptions=True)
    return sum(isinstance(one, httpx.Response) and one.is_success for one in answers)
