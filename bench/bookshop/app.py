"""The bookshop. `BOOKSHOP_PROBLEMS` names the planted problems; without any the shop is healthy."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import re
import time
from typing import Any

import httpx
import requests
from fastapi import FastAPI
from sqlalchemy import NullPool, create_engine, func, select, text
from sqlalchemy.orm import Session, selectinload

from bench.bookshop.database import Author, Sale

PLANTED = os.environ.get("BOOKSHOP_PROBLEMS", "").split(",")
UPSTREAM = os.environ["BOOKSHOP_UPSTREAM"]
DATABASE = os.environ["BOOKSHOP_DATABASE"]

app = FastAPI()
engine = create_engine(DATABASE, pool_size=20, max_overflow=0)
orders_engine = create_engine(
    DATABASE, pool_size=2 if "small_pool" in PLANTED else 20, max_overflow=0
)
stock_engine = create_engine(DATABASE, poolclass=NullPool)
blocking = httpx.Client(base_url=UPSTREAM)
awaited = httpx.AsyncClient(base_url=UPSTREAM)
log = logging.getLogger("bookshop")
log.propagate = False
handler = logging.StreamHandler(io.StringIO())
handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
log.addHandler(handler)
log.setLevel(logging.DEBUG if "logging" in PLANTED else logging.WARNING)
rates: dict[str, tuple[float, Any]] = {}

Answer = dict[str, Any]


@app.get("/authors")
def authors(first: int = 1) -> Answer:
    """List some authors with their books."""
    query = select(Author).where(Author.id >= first).order_by(Author.id).limit(30)
    if "lazy_books" not in PLANTED:
        query = query.options(selectinload(Author.books))
    with Session(engine) as session:
        found = {one.name: [book.title for book in one.books] for one in session.scalars(query)}
    return {"authors": found}


@app.get("/orders")
def orders(book: int = 1) -> Answer:
    """Print the orders of a book, in a transaction that lasts until they are printed."""
    query = select(func.count()).where(Sale.book_id == book)
    with orders_engine.connect() as connection:
        count = connection.execute(query).scalar_one()
        time.sleep(0.03)
    return {"orders": count}


@app.get("/reviews")
def reviews(book: int = 1) -> Answer:
    """Average the stars of a book."""
    query = text("SELECT avg(stars) FROM reviews WHERE book_id = :book")
    with engine.connect() as connection:
        return {"stars": float(connection.execute(query, {"book": book}).scalar_one())}


@app.get("/quote")
async def quote() -> Answer:
    """Ask four suppliers."""
    suppliers = ("north", "south", "east", "west")
    if "serial" in PLANTED:
        answers = [await awaited.get(f"/{each}/quote") for each in suppliers]
    else:
        answers = await asyncio.gather(*(awaited.get(f"/{each}/quote") for each in suppliers))
    return {"quotes": [one.json()["value"] for one in answers]}


@app.get("/cover")
async def cover(book: int = 1) -> Answer:
    """Fetch the picture of a book."""
    if "blocking" in PLANTED:
        return {"cover": requests.get(f"{UPSTREAM}/covers/{book}", timeout=5).json()}
    return {"cover": (await awaited.get(f"/covers/{book}")).json()}


@app.get("/shipping")
def shipping(order: int = 1) -> Answer:
    """Ask what the shipping of an order costs."""
    for _ in range(5 if "retries" in PLANTED else 1):
        answer = blocking.get(f"/shipping/{order}")
        if answer.is_success:
            return {"shipping": answer.json()}
    return {"shipping": None}


@app.get("/tax")
def tax(order: int = 1) -> Answer:
    """Ask what the taxes of an order are."""
    if "client_per_call" in PLANTED:
        with httpx.Client(base_url=UPSTREAM) as client:
            return {"tax": client.get(f"/tax/{order}").json()}
    return {"tax": blocking.get(f"/tax/{order}").json()}


@app.get("/stock")
def stock(book: int = 1) -> Answer:
    """Say how often a book was sold."""
    query = text("SELECT title FROM books WHERE id = :book")
    with (stock_engine if "connection_per_call" in PLANTED else engine).connect() as connection:
        return {"stock": connection.execute(query, {"book": book}).scalar_one()}


TITLES = [f"The {word} of book {i}" for i, word in enumerate(["Tale", "Song", "Art"] * 40)]
DIGITS = re.compile(r"\d+")


@app.get("/search")
def search(word: str = "tale", visit: int = 0) -> Answer:
    """Find the titles with a word."""
    if "regex" in PLANTED:
        # More patterns than the module keeps compiled: no two visits have the same.
        matches = [
            title
            for title in TITLES
            if re.search(rf"(?i)\b{word}(?:s|es)?\b.*(?:{title[-3:]}|{visit})$", title)
        ]
    else:
        matches = [title for title in TITLES if word in title.lower() and DIGITS.search(title)]
    return {"titles": matches}


@app.get("/basket")
def basket(lines: int = 3000) -> Answer:
    """Add up a basket."""
    total = 0
    for number in range(lines):
        log.debug("line %d of %d, total %d so far", number, lines, total)
        total += number
    handler.stream.seek(0)
    return {"total": total}


@app.get("/bestsellers")
def bestsellers() -> Answer:
    """Name what sold best."""
    query = select(Sale).order_by(Sale.copies.desc())
    with Session(engine) as session:
        if "all_rows" in PLANTED:
            best = list(session.scalars(query))[:10]
        else:
            best = list(session.scalars(query.limit(10)))
        return {"books": [one.book_id for one in best]}


@app.get("/price")
def price() -> Answer:
    """Convert a price; the rate changes once a day."""
    kept_at, rate = rates.get("EUR", (-3600.0, None))
    if "repeated" in PLANTED or time.monotonic() - kept_at > 3600:
        rate = blocking.get("/rates/EUR").json()["value"]
        rates["EUR"] = time.monotonic(), rate
    return {"price": 20 * rate}
