"""What is in the depot's database."""

from __future__ import annotations

import psycopg
from sqlalchemy import ForeignKey
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(AsyncAttrs, DeclarativeBase):
    """What all tables share."""


class Order(Base):
    """What is to be sent."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]
    lines: Mapped[list[Line]] = relationship(order_by="Line.id")


class Line(Base):
    """One article of an order."""

    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), index=True)
    article: Mapped[str]
    amount: Mapped[int]


def fill(url: str, *, with_index: bool) -> None:
    """Make the tables and fill them."""
    with psycopg.connect(url) as connection:
        for statement in (
            "CREATE TABLE orders (id serial PRIMARY KEY, customer text)",
            "CREATE TABLE lines (id serial PRIMARY KEY, order_id int, article text, amount int)",
            "CREATE TABLE scans (id serial PRIMARY KEY, order_id int, grams int, gate text)",
            "INSERT INTO orders SELECT i, 'customer ' || i FROM generate_series(1, 20000) AS i",
            "INSERT INTO lines SELECT i, 1 + i % 20000, 'article ' || i % 700, i % 9 "
            "FROM generate_series(1, 60000) AS i",
            "INSERT INTO scans SELECT i, 1 + i * 31 % 20000, i % 900, 'gate ' || i % 12 "
            "FROM generate_series(1, 800000) AS i",
            "CREATE INDEX ON lines (order_id)",
            *(["CREATE INDEX ON scans (order_id)"] if with_index else []),
            "ANALYZE",
        ):
            connection.execute(statement)
