"""The tools that the gateway offers. Each of the first eight carries one planted problem.

A tool is a plain function, which runs in a worker thread, or an async one, which runs on the event
loop. Where a problem is planted, the branch `if "NAME" in desk.problems` is the wrong way, and what
follows it is the mended one.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
from opentelemetry import trace
from sqlalchemy import select, text
from sqlalchemy.orm import Session, selectinload

from perfkit.demo.database import Database, Order, OrderItem, StockItem
from perfkit.demo.upstream import TIMEOUT_S, Upstream

tracer = trace.get_tracer(__name__)

Result = dict[str, Any]


class ToolError(Exception):
    """The tool ran and failed; the caller gets the message."""


class Cache:
    """Values that are worth keeping for a while."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._values: dict[Hashable, tuple[float, Result]] = {}

    def get(self, key: Hashable) -> Result | None:
        """Return the value, or None when there is none or it is too old."""
        kept_at, value = self._values.get(key, (0.0, None))
        return value if time.monotonic() - kept_at < self._keep_s else None

    def put(self, key: Hashable, value: Result) -> None:
        """Keep the value."""
        self._values[key] = (time.monotonic(), value)


class VoucherBook:
    """Hands out voucher numbers; they must not repeat, so a lock guards them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    def acquire_lock(self) -> None:
        """Wait for the lock, in a span of its own, because that can take long."""
        with tracer.start_as_current_span("acquire voucher lock"):
            self._lock.acquire()

    def release_lock(self) -> None:
        """Let the next caller in."""
        self._lock.release()

    def next_number(self) -> int:
        """Return a number that was not given before; the caller holds the lock."""
        return next(self._numbers)


@dataclass
class Desk:
    """What tools work with."""

    problems: frozenset[str]
    database: Database
    upstream: Upstream
    query_results: Cache = field(default_factory=lambda: Cache(keep_s=60))
    vouchers: VoucherBook = field(default_factory=VoucherBook)


# --- cache


USAGE_BY_MONTH = text(
    "SELECT day / 30 AS month, count(*) AS calls, avg(duration_ms) AS mean_ms, "
    "max(duration_ms) AS max_ms FROM usage_events WHERE duration_ms > :slower_than_ms "
    "GROUP BY day / 30 ORDER BY day / 30"
)


def database_query(desk: Desk, slower_than_ms: int) -> Result:
    """Count the slow calls of every month."""
    if "cache" in desk.problems:
        return usage_by_month(desk.database, slower_than_ms)
    result = desk.query_results.get(slower_than_ms)
    if result is None:
        result = usage_by_month(desk.database, slower_than_ms)
        desk.query_results.put(slower_than_ms, result)
    return result


def usage_by_month(database: Database, slower_than_ms: int) -> Result:
    """Run the query."""
    with database.store.connect() as connection:
        rows = connection.execute(USAGE_BY_MONTH, {"slower_than_ms": slower_than_ms}).all()
    return {"months": [[row.month, row.calls, float(row.mean_ms), row.max_ms] for row in rows]}


# --- pool


def check_stock(desk: Desk, sku: str) -> Result:
    """Compare our stock with the warehouse's; the connection is held while we ask there.

    The problem `pool`: the inventory engine has a single connection (see `database.connect`).
    """
    with Session(desk.database.inventory) as session:
        item = session.get(StockItem, sku)
        if item is None:
            raise ToolError(f"there is no article {sku}")
        counted = ask(desk.upstream.blocking, "stock", sku)
        return {"sku": sku, "booked": item.quantity, "counted": counted["value"]}


# --- n_plus_one


def list_orders(desk: Desk, user_id: int) -> Result:
    """List a user's orders with their totals."""
    query = select(Order).where(Order.user_id == user_id).order_by(Order.id)
    if "n_plus_one" not in desk.problems:
        query = query.options(selectinload(Order.items))
    with Session(desk.database.store) as session:
        # With the problem, every `order.items` is loaded here, by a query of its own.
        orders = [
            {"id": order.id, "total_cents": total_cents(order.items)}
            for order in session.scalars(query)
        ]
    if not orders:
        raise ToolError(f"there is no user {user_id} with orders")
    return {"user_id": user_id, "orders": orders}


def total_cents(items: list[OrderItem]) -> int:
    """Add the lines of an order up."""
    return sum(item.quantity * item.price_cents for item in items)


# --- index


MOST_CITED = text(
    "SELECT d.id, d.title, "
    "(SELECT count(*) FROM citations AS c WHERE c.document_id = d.id) AS cited "
    "FROM documents AS d WHERE d.topic = :topic ORDER BY cited DESC, d.id LIMIT 10"
)


def search_documents(desk: Desk, topic: str) -> Result:
    """List the documents of a topic that are cited most.

    The problem `index`: `citations.document_id` has none (see `database.prepare`).
    """
    with desk.database.store.connect() as connection:
        rows = connection.execute(MOST_CITED, {"topic": topic}).all()
    return {"documents": [{"id": row.id, "title": row.title, "cited": row.cited} for row in rows]}


# --- serial


async def plan_trip(desk: Desk, city: str) -> Result:
    """Ask four services about a city."""
    services = ("flights", "hotels", "events", "traffic")
    client = desk.upstream.awaited
    if "serial" in desk.problems:
        answers = [await ask_awaited(client, service, city) for service in services]
    else:
        answers = await asyncio.gather(*(ask_awaited(client, each, city) for each in services))
    return {answer["service"]: answer["value"] for answer in answers}


# --- blocking


async def render_report(desk: Desk, title: str) -> Result:
    """Fetch a chart and put it into a report."""
    if "blocking" in desk.problems:
        chart = ask(desk.upstream.blocking, "charts", title)
    else:
        chart = await ask_awaited(desk.upstream.awaited, "charts", title)
    return {"report": f"# {title}\n\n![chart {chart['value']}](chart.svg)\n"}


# --- hot_code


def weather(desk: Desk, city: str) -> Result:
    """Ask for the weather in a city."""
    if "hot_code" in desk.problems:
        # A client of its own builds a TLS context of its own, though no TLS is spoken here.
        with httpx.Client(base_url=desk.upstream.base_url, timeout=TIMEOUT_S) as client:
            answer = ask(client, "weather", city)
    else:
        answer = ask(desk.upstream.blocking, "weather", city)
    return {"city": city, "celsius": answer["value"] % 30}


# --- lock


def reserve_voucher(desk: Desk, campaign: str) -> Result:
    """Give out a voucher and have the campaign's service confirm it."""
    desk.vouchers.acquire_lock()
    try:
        number = desk.vouchers.next_number()
        if "lock" in desk.problems:
            ask(desk.upstream.blocking, "vouchers", campaign)
    finally:
        desk.vouchers.release_lock()
    if "lock" not in desk.problems:
        ask(desk.upstream.blocking, "vouchers", campaign)
    return {"voucher": f"{campaign}-{number:06}"}


# --- no problem of its own


async def current_time(desk: Desk) -> Result:
    """Say what time it is."""
    return {"utc": datetime.now(UTC).isoformat()}


# --- calling upstream


def ask(client: httpx.Client, service: str, subject: str) -> Result:
    """Ask an upstream service, and wait for the answer."""
    try:
        return _answer(client.get(f"/{service}/{subject}"))
    except httpx.HTTPError as error:
        raise _not_answered(service, error) from error


async def ask_awaited(client: httpx.AsyncClient, service: str, subject: str) -> Result:
    """Ask an upstream service without holding up the event loop."""
    try:
        return _answer(await client.get(f"/{service}/{subject}"))
    except httpx.HTTPError as error:
        raise _not_answered(service, error) from error


def _answer(response: httpx.Response) -> Result:
    answer: Result = response.json()
    if response.is_error:
        raise ToolError(answer["error"])
    return answer


def _not_answered(service: str, error: httpx.HTTPError) -> ToolError:
    return ToolError(f"the service {service} did not answer: {error}")


# --- the registry


@dataclass(frozen=True)
class Tool:
    """A tool and what its callers must know."""

    name: str
    run: Callable[..., Result] | Callable[..., Awaitable[Result]]
    arguments: dict[str, type]
    """Name -> type; all are required."""

    @property
    def description(self) -> str:
        """What the tool does, in one line."""
        return (self.run.__doc__ or "").partition("\n")[0]

    def describe(self) -> Result:
        """Return the tool as MCP's `tools/list` shows it."""
        types = {int: "integer", str: "string"}
        properties = {name: {"type": types[kind]} for name, kind in self.arguments.items()}
        return {
            "name": self.name,
            "description": self.description,
            "inputSchema": {
                "type": "object",
                "properties": properties,
                "required": list(self.arguments),
            },
        }

    def complaint(self, arguments: Any) -> str | None:
        """Return what is wrong with `arguments`, or None when the tool can be run with them."""
        if not isinstance(arguments, dict) or arguments.keys() != self.arguments.keys():
            return f"{self.name} takes the arguments {{{', '.join(self.arguments)}}}"
        for name, kind in self.arguments.items():
            if type(arguments[name]) is not kind:
                return f"the argument {name} of {self.name} must be of type {kind.__name__}"
        return None


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("database-query", database_query, {"slower_than_ms": int}),
        Tool("check-stock", check_stock, {"sku": str}),
        Tool("list-orders", list_orders, {"user_id": int}),
        Tool("search-documents", search_documents, {"topic": str}),
        Tool("plan-trip", plan_trip, {"city": str}),
        Tool("render-report", render_report, {"title": str}),
        Tool("weather", weather, {"city": str}),
        Tool("reserve-voucher", reserve_voucher, {"campaign": str}),
        Tool("current-time", current_time, {}),
    )
}
"""All tools by name."""
