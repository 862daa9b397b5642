"""The depot. `DEPOT_PROBLEMS` names the planted problems; without any the depot is healthy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import asyncpg
import psycopg
import requests
from aiohttp import ClientSession, web
from opentelemetry import trace
from pydantic import BaseModel, TypeAdapter
from redis.asyncio import Redis
from requests.adapters import HTTPAdapter
from sqlalchemy import select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import selectinload

from bench.depot.database import Order
from bench.depot.worker import work

PLANTED = os.environ.get("DEPOT_PROBLEMS", "").split(",")
UPSTREAM = os.environ["DEPOT_UPSTREAM"]
DATABASE = os.environ["DEPOT_DATABASE"]
WORKERS = 4

database = web.AppKey("database", asyncpg.Pool)
upstream = web.AppKey("upstream", ClientSession)
store = web.AppKey("store", Redis)
engine = create_async_engine(DATABASE.replace("postgresql:", "postgresql+asyncpg:"), pool_size=10)
sessions = async_sessionmaker(engine)
blocking = psycopg.connect(DATABASE, autocommit=True) if "sync_driver" in PLANTED else None
customs_session = requests.Session()
customs_session.mount(UPSTREAM, HTTPAdapter(pool_maxsize=32))
lock = asyncio.Lock()


class Weight(BaseModel):
    """How heavy something is."""

    grams: int
    estimated: bool = False


class Delivered(BaseModel):
    """One line of a delivery note."""

    kind: Literal["article"] = "article"
    article: str
    amount: int
    weight: Weight


class Returned(BaseModel):
    """One line of what comes back."""

    kind: Literal["return"]
    article: str
    reason: str


NOTE = [{"article": f"a {i}", "amount": i % 9, "weight": {"grams": i}} for i in range(1000)]
AnyLine = TypeAdapter(Delivered | Returned)


async def summary(request: web.Request) -> web.Response:
    """Count what happened lately."""
    since = int(request.query["since"])
    queries = (
        "SELECT count(DISTINCT order_id) FROM scans WHERE id BETWEEN $1 AND $1 + 40000",
        "SELECT max(amount * 2) FROM lines WHERE id > $1 % 1000",
        "SELECT sum(grams) FROM scans WHERE id BETWEEN $1 AND $1 + 90000",
        "SELECT count(*) FROM scans WHERE gate LIKE '%7' AND id BETWEEN $1 AND $1 + 60000",
    )
    pool = request.app[database]
    if "serial_queries" in PLANTED:
        counts = [await pool.fetchval(query, since) for query in queries]
    else:
        counts = await asyncio.gather(*(pool.fetchval(query, since) for query in queries))
    return web.json_response({"counts": counts})


async def inventory(request: web.Request) -> web.Response:
    """Weigh what went through the gates on three days."""
    days = [int(request.query["first"]) + 100_000 * day for day in range(3)]
    query = "SELECT gate, sum(grams) FROM scans WHERE id BETWEEN {} AND {} + 99999 GROUP BY gate"
    if blocking is not None:
        blocked = query.format("%s", "%s")
        found = [blocking.execute(blocked, (day, day)).fetchall() for day in days]
    else:
        fetch, awaited = request.app[database].fetch, query.format("$1", "$1")
        found = await asyncio.gather(*(fetch(awaited, day) for day in days))
    return web.json_response([dict(rows) for rows in found])


async def orders(request: web.Request) -> web.Response:
    """List some orders with their lines."""
    query = select(Order).where(Order.id >= int(request.query["first"])).order_by(Order.id)
    if "lazy_lines" not in PLANTED:
        query = query.options(selectinload(Order.lines))
    async with sessions() as session:
        found = {
            one.customer: [line.article for line in await one.awaitable_attrs.lines]
            for one in await session.scalars(query.limit(30))
        }
    return web.json_response(found)


def _declare(order: str) -> float:
    return float(customs_session.get(f"{UPSTREAM}/customs/{order}").json()["value"])


async def customs(request: web.Request) -> web.Response:
    """Ask the customs, whose library blocks."""
    return web.json_response({"duty": await asyncio.to_thread(_declare, request.query["order"])})


async def reserve(request: web.Request) -> web.Response:
    """Reserve a place on a lorry."""
    held = lock if "async_lock" in PLANTED else contextlib.nullcontext()
    async with held, request.app[upstream].get(f"/parcels/{request.query['order']}") as answer:
        return web.json_response(await answer.json())


async def delivery(request: web.Request) -> web.Response:
    """Check a delivery note."""
    if "validator_per_line" in PLANTED:
        lines = [TypeAdapter(Delivered | Returned).validate_python(one) for one in NOTE]
    else:
        lines = [AnyLine.validate_python(one) for one in NOTE]
    return web.json_response({"lines": len(lines)})


async def label(request: web.Request) -> web.Response:
    """Print a label, and wait until the worker has."""
    kept, job = request.app[store], f"label:{request.query['visit']}"
    await kept.rpush("jobs", job)
    if "polling" in PLANTED:
        while await kept.get(job) is None:
            await asyncio.sleep(0.005)
    else:
        await kept.blpop([f"{job}:done"], timeout=10)
    return web.json_response({"printed": True})


async def pack(request: web.Request) -> web.Response:
    """Have the worker pack an order."""
    await request.app[store].rpush("jobs", f"pack:{request.query['order']}")
    return web.json_response({"accepted": True}, status=202)


async def ready(request: web.Request) -> web.Response:
    """Say that it serves."""
    return web.Response(text="ready")


async def _behind(app: web.Application) -> AsyncIterator[None]:
    if "default_executor" not in PLANTED:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))
    tracer = trace.get_tracer("depot")
    async with (
        asyncpg.create_pool(DATABASE, min_size=10, max_size=20) as app[database],
        ClientSession(UPSTREAM) as app[upstream],
        Redis(port=int(os.environ["DEPOT_REDIS_PORT"])) as app[store],
    ):
        workers = [
            asyncio.create_task(work(tracer, app[store], app[database], app[upstream]))
            for _ in range(WORKERS)
        ]
        yield
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        await engine.dispose()


def make() -> web.Application:
    """Return the depot's application."""
    app = web.Application()
    pages = (summary, inventory, orders, customs, reserve, delivery, label, pack, ready)
    app.add_routes([web.get(f"/{page.__name__}", page) for page in pages])
    app.cleanup_ctx.append(_behind)
    return app


if __name__ == "__main__":
    web.run_app(make(), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
