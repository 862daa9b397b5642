"""What is in the theatre's database."""

from __future__ import annotations

import psycopg
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """What all tables share."""


class Sale(Base):
    """One sold seat."""

    __tablename__ = "sales"
    id: Mapped[int] = mapped_column(primary_key=True)
    show: Mapped[int]
    seat: Mapped[str]
    buyer: Mapped[str]
    pence: Mapped[int]


class Ticket(Base):
    """One printed ticket."""

    __tablename__ = "tickets"
    id: Mapped[int] = mapped_column(primary_key=True)
    sale: Mapped[int]
    code: Mapped[str]


def fill(url: str) -> None:
    """Make the tables and fill them."""
    with psycopg.connect(url) as connection:
        for statement in (
            "CREATE TABLE sales (id serial PRIMARY KEY, show int, seat text, buyer text, "
            "pence int)",
            "CREATE TABLE tickets (id serial PRIMARY KEY, sale int, code text)",
            "INSERT INTO sales SELECT i, i % 400, 'seat ' || i % 900, 'buyer ' || i % 7000, "
            "i % 9000 FROM generate_series(1, 600000) AS i",
            "CREATE INDEX ON sales (show, id)",
            "ANALYZE",
        ):
            connection.execute(statement)
