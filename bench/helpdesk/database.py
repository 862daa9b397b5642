"""What is in the helpdesk's database."""

from __future__ import annotations

import psycopg2


def fill(port: int, *, with_index: bool) -> None:
    """Make the tables and fill them."""
    connection = psycopg2.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres")
    with connection, connection.cursor() as cursor:
        for statement in (
            "CREATE TABLE customers (id bigserial PRIMARY KEY, name text)",
            "CREATE TABLE tickets (id bigserial PRIMARY KEY, customer_id bigint, subject text)",
            "CREATE TABLE messages (id bigserial PRIMARY KEY, ticket_id int, words int, body text)",
            "CREATE TABLE tags (id bigserial PRIMARY KEY, ticket_id int, label text)",
            "INSERT INTO customers SELECT i, 'customer ' || i FROM generate_series(1, 5000) AS i",
            "INSERT INTO tickets SELECT i, 1 + i * 31 % 5000, 'ticket ' || i "
            "FROM generate_series(1, 20000) AS i",
            "INSERT INTO messages (ticket_id, words, body) SELECT 1 + i * 31 % 20000, i % 90, "
            "repeat('fine ', 20) FROM generate_series(1, 800000) AS i",
            *(["CREATE INDEX ON messages (ticket_id)"] if with_index else []),
            "ANALYZE",
        ):
            cursor.execute(statement)
    connection.close()
