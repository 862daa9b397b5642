"""The gateway's database: its tables, their rows, and the engines that reach them.

SQLite in a file by default, PostgreSQL when a URL is given. The gateway only reads; the rows are
made once, by arithmetic, so that every run sees the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import sqlalchemy
from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation
from sqlalchemy import Connection, Engine, ForeignKey, QueuePool, event, inspect, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

USERS = 40
ORDERS = USERS * 50
SKUS = 200
TOPICS = 40
DOCUMENTS = TOPICS * 24
REGIONS = 6


class Base(DeclarativeBase):
    """All tables."""


class User(Base):
    """A customer."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Order(Base):
    """An order of a customer."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    placed_day: Mapped[int]
    items: Mapped[list[OrderItem]] = relationship()


class OrderItem(Base):
    """One line of an order."""

    __tablename__ = "order_items"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), index=True)
    sku: Mapped[str]
    quantity: Mapped[int]
    price_cents: Mapped[int]


class Document(Base):
    """A document that can be searched by topic."""

    __tablename__ = "documents"
    id: Mapped[int] = mapped_column(primary_key=True)
    topic: Mapped[str] = mapped_column(index=True)
    title: Mapped[str]


class Citation(Base):
    """One document cites another. Whether `document_id` has an index, `prepare` decides."""

    __tablename__ = "citations"
    id: Mapped[int] = mapped_column(primary_key=True)
    document_id: Mapped[int]
    cited_by: Mapped[int]


class UsageEvent(Base):
    """One past tool call, as the usage report counts it."""

    __tablename__ = "usage_events"
    id: Mapped[int] = mapped_column(primary_key=True)
    region: Mapped[str]
    day: Mapped[int]
    duration_ms: Mapped[int]


class StockItem(Base):
    """What the inventory believes to have of an article."""

    __tablename__ = "stock_items"
    sku: Mapped[str] = mapped_column(primary_key=True)
    quantity: Mapped[int]


class Seeded(Base):
    """Marks a database whose tables are the demo's own; its one row says that they are filled."""

    __tablename__ = "perfkit_demo"
    version: Mapped[int] = mapped_column(primary_key=True)


SEED_VERSION = 2
CITATIONS_INDEX = "ix_citations_document_id"

ROWS: dict[str, tuple[int, dict[str, str]]] = {
    "users": (USERS, {"id": "i", "name": "'user-' || i"}),
    "orders": (
        ORDERS,
        {"id": "i", "user_id": f"1 + i % {USERS}", "placed_day": "i * 31 % 365"},
    ),
    "order_items": (
        ORDERS * 2,
        {
            "id": "i",
            "order_id": f"1 + i % {ORDERS}",
            "sku": f"'sku-' || (i * 7 % {SKUS})",
            "quantity": "1 + i % 4",
            "price_cents": "199 + i * 37 % 9000",
        },
    ),
    "documents": (
        DOCUMENTS,
        {"id": "i", "topic": f"'topic-' || (i % {TOPICS})", "title": "'Document ' || i"},
    ),
    "citations": (
        150_000,
        {
            "id": "i",
            "document_id": f"1 + i * 7919 % {DOCUMENTS}",
            "cited_by": f"1 + i * 31 % {DOCUMENTS}",
        },
    ),
    "usage_events": (
        320_000,
        {
            "id": "i",
            "region": f"'region-' || (i * 17 % {REGIONS})",
            "day": "i % 365",
            "duration_ms": "5 + i * 7919 % 900",
        },
    ),
    "stock_items": (SKUS, {"sku": "'sku-' || (i - 1)", "quantity": "i * 13 % 500"}),
    "perfkit_demo": (1, {"version": f"{SEED_VERSION}"}),
}
"""Table -> how many rows, and the expression of each column for row `i`, counted from 1."""


class DatabaseError(Exception):
    """The database cannot be used; the message says why."""


@dataclass(frozen=True)
class Database:
    """The two engines of the gateway, each with its own pool."""

    store: Engine
    inventory: Engine

    def dispose(self) -> None:
        """Close all connections."""
        self.store.dispose()
        self.inventory.dispose()


def connect(url: str, problems: Collection[str], workers: int) -> Database:
    """Make the engines, and the rows where there are none yet.

    The inventory's pool is as large as the number of worker threads, unless the problem `pool` is
    present. Raises DatabaseError.
    """
    try:
        database = Database(
            store=_engine(url, "store", pool_size=workers),
            inventory=_engine(url, "inventory", pool_size=1 if "pool" in problems else workers),
        )
        with database.store.begin() as connection:
            prepare(connection, indexed="index" not in problems)
    except SQLAlchemyError as error:
        raise DatabaseError(str(error).partition("\n")[0]) from error
    except ModuleNotFoundError as error:
        raise DatabaseError(
            f"the driver {error.name} is not installed; for PostgreSQL: "
            f"pip install 'psycopg[binary]', and the URL begins with postgresql+psycopg://"
        ) from error
    _report_pools(database)
    return database


def _engine(url: str, name: str, pool_size: int) -> Engine:
    # Looked up at call time: the OpenTelemetry instrumentation replaces this function.
    engine = sqlalchemy.create_engine(
        url,
        poolclass=QueuePool,
        pool_logging_name=name,
        pool_use_lifo=True,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=20,
    )
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _keep_cache_small)
    return engine


def _keep_cache_small(connection: DBAPIConnection, _: object) -> None:
    # SQLite's own 2 MB for each connection fill up in the first seconds, and look like a leak.
    connection.cursor().execute("PRAGMA cache_size = -256")


def prepare(connection: Connection, *, indexed: bool) -> None:
    """Create and fill the tables unless that was done before; create or drop the index."""
    present = set(inspect(connection).get_table_names()) & set(Base.metadata.tables)
    if Seeded.__tablename__ not in present:
        if present:
            raise DatabaseError(
                f"it already has tables named {', '.join(sorted(present))}; "
                f"give the demo an empty one"
            )
        Base.metadata.create_all(connection)
        for table, (count, columns) in ROWS.items():
            connection.execute(text(_insert(table, count, columns)))
    if indexed:
        create = f"CREATE INDEX IF NOT EXISTS {CITATIONS_INDEX} ON citations (document_id)"
        connection.execute(text(create))
    else:
        connection.execute(text(f"DROP INDEX IF EXISTS {CITATIONS_INDEX}"))
    connection.execute(text("ANALYZE"))


def _insert(table: str, count: int, columns: dict[str, str]) -> str:
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) "
        f"WITH RECURSIVE numbers(i) AS "
        f"(SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {count}) "
        f"SELECT {', '.join(columns.values())} FROM numbers"
    )


def _report_pools(database: Database) -> None:
    """Export the state of the pools under the present names of the conventions.

    The instrumentation of SQLAlchemy knows only the former `db.client.connections.usage`.
    """
    pools = []
    for engine in (database.store, database.inventory):
        assert isinstance(engine.pool, QueuePool)
        pools.append((engine.pool, {"db.client.connection.pool.name": engine.pool.logging_name}))

    def counts(_: CallbackOptions) -> Iterable[Observation]:
        for pool, name in pools:
            yield Observation(pool.checkedout(), {**name, "db.client.connection.state": "used"})
            yield Observation(pool.checkedin(), {**name, "db.client.connection.state": "idle"})

    def sizes(_: CallbackOptions) -> Iterable[Observation]:
        for pool, name in pools:
            yield Observation(pool.size(), name)

    meter = metrics.get_meter(__name__)
    for metric, callback in (("count", counts), ("max", sizes)):
        meter.create_observable_up_down_counter(
            f"db.client.connection.{metric}", callbacks=[callback], unit="{connection}"
        )
