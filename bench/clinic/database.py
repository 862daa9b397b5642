"""What is in the clinic's database."""

from __future__ import annotations

import psycopg


def fill(port: int, *, with_index: bool) -> None:
    """Make the tables and fill them."""
    with psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres") as connection:
        for statement in (
            "CREATE TABLE doctor (id bigserial PRIMARY KEY, name text, next_slot int)",
            "CREATE TABLE patient (id bigserial PRIMARY KEY, name text)",
            "CREATE TABLE visit (id bigserial PRIMARY KEY, doctor_id bigint, patient_id bigint, "
            "reason text)",
            "CREATE TABLE result (id bigserial PRIMARY KEY, sample text, kind int, value float8, "
            "comment text)",
            "CREATE TABLE medicine (id bigserial PRIMARY KEY, shelf int, name text, left_over int)",
            "INSERT INTO doctor SELECT i, 'doctor ' || i, 0 FROM generate_series(1, 40) AS i",
            "INSERT INTO patient SELECT i, 'patient ' || i FROM generate_series(1, 20000) AS i",
            "INSERT INTO visit SELECT i, 1 + i % 40, 1 + i * 31 % 20000, 'cough ' || i % 90 "
            "FROM generate_series(1, 100000) AS i",
            "INSERT INTO result SELECT i, 'S' || i * 31 % 200000, i % 130, i % 97, "
            "repeat('as expected, ', 12) FROM generate_series(1, 400000) AS i",
            "INSERT INTO medicine SELECT i, i % 20, 'medicine ' || i, i % 50 "
            "FROM generate_series(1, 60000) AS i",
            "CREATE INDEX ON visit (patient_id)",
            "CREATE INDEX ON result (kind)",
            "CREATE INDEX ON medicine (shelf)",
            *(["CREATE INDEX ON result (sample)"] if with_index else []),
            "ANALYZE",
        ):
            connection.execute(statement)
