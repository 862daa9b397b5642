"""The depot's worker: it takes jobs from a list in Redis, and no request waits for most of them."""

from __future__ import annotations

import asyncpg
from aiohttp import ClientSession
from opentelemetry.trace import SpanKind, Tracer
from redis.asyncio import Redis

_ATTRIBUTES = {"messaging.system": "redis", "messaging.destination.name": "jobs"}


async def work(
    tracer: Tracer, store: Redis, database: asyncpg.Pool, upstream: ClientSession
) -> None:
    """Do the jobs, one by one, until it is cancelled."""
    while True:
        taken = await store.blpop(["jobs"], timeout=1)
        if taken is None:
            continue
        job = taken[1].decode()
        kind, _, subject = job.partition(":")
        # By hand, as no instrumentation knows a loop of one's own.
        with tracer.start_as_current_span(f"process {kind}", kind=SpanKind.CONSUMER) as span:
            span.set_attributes(_ATTRIBUTES)
            if kind == "label":
                await _print(store, upstream, job)
            else:
                await _pack(database, int(subject))


async def _print(store: Redis, upstream: ClientSession, job: str) -> None:
    async with upstream.get(f"/printers/{job}") as answer:
        await answer.read()
    async with store.pipeline() as pipe:
        pipe.set(job, "printed", ex=60)
        pipe.rpush(f"{job}:done", "printed")
        pipe.expire(f"{job}:done", 60)
        await pipe.execute()


async def _pack(database: asyncpg.Pool, order: int) -> None:
    query = "SELECT gate, sum(grams) FROM scans WHERE order_id = $1 GROUP BY gate"
    assert await database.fetch(query, order)
