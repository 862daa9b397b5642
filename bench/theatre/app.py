"""The box office. `THEATRE_PROBLEMS` names the planted problems; without any it is healthy."""

from __future__ import annotations

import asyncio
import hashlib
import os
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import BackgroundTasks, FastAPI
from redis.asyncio import Redis
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from bench.theatre.database import Sale, Ticket

PLANTED = os.environ.get("THEATRE_PROBLEMS", "").split(",")
DATABASE = os.environ["THEATRE_DATABASE"].replace("postgresql:", "postgresql+asyncpg:")
POSTER = b"".join(b"%d,%d;" % (i, i * i % 977) for i in range(250_000))
SEATS = 15

engine = create_async_engine(DATABASE, pool_size=4, max_overflow=0)
sessions = async_sessionmaker(engine, expire_on_commit=False)
upstream = httpx.AsyncClient(base_url=os.environ["THEATRE_UPSTREAM"], timeout=30)
store = Redis(port=int(os.environ["THEATRE_REDIS_PORT"]))


@asynccontextmanager
async def _life(_: FastAPI) -> AsyncIterator[None]:
    async with upstream, store:
        await store.mset({f"left:{show}": show % 90 for show in range(500)})
        yield
        await engine.dispose()


app = FastAPI(lifespan=_life)


async def _pay(sale: int) -> float:
    return float((await upstream.get(f"/payments/{sale}")).json()["value"])


@app.get("/book")
async def book(sale: int) -> dict[str, float]:
    """Sell a seat."""
    query = select(Sale).where(Sale.id == sale)
    if "held_connection" in PLANTED:
        async with sessions() as session:
            found = (await session.scalars(query)).one()
            return {"paid": await _pay(found.id)}
    async with sessions() as session:
        found = (await session.scalars(query)).one()
    return {"paid": await _pay(found.id)}


async def _price(seat: int) -> float:
    # The carriers of the helpdesk answer quickly, as a list of prices does.
    return float((await upstream.get(f"/carriers/{seat}")).json()["value"])


@app.get("/seats")
async def seats(show: int) -> dict[str, list[float]]:
    """Say what the free seats cost."""
    async with sessions() as session:
        rows = await session.scalars(
            select(Sale.id).where(Sale.show == show).order_by(Sale.id).limit(SEATS)
        )
    if "price_per_seat" in PLANTED:
        return {"prices": [await _price(row) for row in rows]}
    return {"prices": [await _price(show)] * len(rows.all())}


@app.get("/shows")
async def shows(first: int) -> dict[str, list[bytes | None]]:
    """Say what is left of a hundred shows."""
    keys = [f"left:{show}" for show in range(first, first + 100)]
    if "key_per_show" in PLANTED:
        return {"left": [await store.get(key) for key in keys]}
    return {"left": await store.mget(keys)}


@app.get("/reprint")
async def reprint(sale: int) -> dict[str, int]:
    """Print the tickets of a group anew."""
    tickets = [{"sale": sale, "code": f"{sale}-{number}"} for number in range(40)]
    async with sessions.begin() as session:
        if "row_by_row" in PLANTED:
            for ticket in tickets:
                await session.execute(insert(Ticket).values(**ticket))
        else:
            await session.execute(insert(Ticket).values(tickets))
    return {"printed": len(tickets)}


@app.get("/takings")
async def takings(show: int) -> dict[str, int]:
    """Add up what three shows took."""
    those = Sale.show.between(show, show + 2)
    async with sessions() as session:
        if "whole_table" in PLANTED:
            sales = (await session.scalars(select(Sale).where(those))).all()
            return {"pence": sum(sale.pence for sale in sales)}
        return {"pence": (await session.scalars(select(func.sum(Sale.pence)).where(those))).one()}


def _hash(name: str) -> str:
    return hashlib.scrypt(name.encode(), salt=b"theatre", n=2**14, r=8, p=1).hex()


@app.get("/login")
async def login(name: str) -> dict[str, str]:
    """Check a password."""
    if "password" in PLANTED:
        return {"token": _hash(name)}
    return {"token": await asyncio.to_thread(_hash, name)}


@app.get("/history")
async def history(page: int) -> dict[str, list[str]]:
    """List a page of all sales."""
    query = select(Sale.buyer).order_by(Sale.id).limit(50)
    far = "deep_page" in PLANTED
    query = query.offset(page * 50) if far else query.where(Sale.id > page * 50)
    async with sessions() as session:
        return {"buyers": list(await session.scalars(query))}


def _pack() -> int:
    return len(zlib.compress(POSTER, 6))


async def _pack_here() -> None:
    _pack()


@app.get("/poster")
async def poster(show: int, later: BackgroundTasks) -> dict[str, int]:
    """Have a poster packed."""
    later.add_task(_pack_here if "background" in PLANTED else _pack)
    return {"show": show}
