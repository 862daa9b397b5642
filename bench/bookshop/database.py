"""The bookshop's tables."""

from __future__ import annotations

from sqlalchemy import Engine, ForeignKey, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """What all tables share."""


class Author(Base):
    """Who writes."""

    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    books: Mapped[list[Book]] = relationship(order_by="Book.id")


class Book(Base):
    """What is sold."""

    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"), index=True)
    title: Mapped[str]


class Sale(Base):
    """What was sold."""

    __tablename__ = "sales"
    id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[int] = mapped_column(index=True)
    copies: Mapped[int] = mapped_column(index=True)
    buyer: Mapped[str]
    address: Mapped[str]


def fill(engine: Engine, *, with_index: bool) -> None:
    """Make the tables and fill them."""
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        for statement in (
            "CREATE TABLE reviews (id bigserial PRIMARY KEY, book_id int, stars int, body text)",
            "INSERT INTO authors SELECT i, 'author ' || i FROM generate_series(1, 300) AS i",
            "INSERT INTO books SELECT i, 1 + i % 300, 'book ' || i FROM generate_series(1, 3000) i",
            "INSERT INTO sales SELECT i, 1 + i % 3000, i * 7919 % 10007, 'buyer ' || i, "
            "repeat('street ', 8) FROM generate_series(1, 8000) AS i",
            "INSERT INTO reviews (book_id, stars, body) SELECT 1 + i * 31 % 3000, i % 5, "
            "repeat('fine ', 20) FROM generate_series(1, 900000) AS i",
            *(["CREATE INDEX ON reviews (book_id)"] if with_index else []),
            "ANALYZE",
        ):
            connection.execute(text(statement))
