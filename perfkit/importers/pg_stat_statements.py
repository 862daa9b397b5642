"""PostgreSQL's `pg_stat_statements`: sums of calls and times by statement.

As CSV, or live (postgresql.py).

It counts since its last reset, so each row is a cumulative histogram without buckets: sum and count
of `db.client.operation.duration`, at the time when the file was written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from perfkit import masking, units
from perfkit.capture import CaptureWriter
from perfkit.importers import tables
from perfkit.importers.base import Format, Source
from perfkit.importers.rows import MetricRows
from perfkit.semconv import Value

NAME = "pg-stat-statements"
FORMAT = Format(
    title="PostgreSQL's `pg_stat_statements`, CSV",
    made_by="`psql -c \"\\copy (select * from pg_stat_statements) to 'FILE' csv header\"`; "
    "or live: `perfkit import postgresql://HOST/DB`",
    recognised_by="columns `query`, `calls` and `total_exec_time` (before 13: `total_time`)",
    gives="metrics: time and calls of each statement, rows and blocks",
    lacks="single calls, when they were, who called; everything since the last reset",
    tried="PostgreSQL 15.18",
)

_SUMS = {
    "rows": ("db.client.response.returned_rows", "{row}"),
    "shared_blks_read": ("postgresql.blocks_read", "{block}"),
    "shared_blks_hit": ("postgresql.blocks_hit", "{block}"),
    "temp_blks_written": ("postgresql.temp_blocks_written", "{block}"),
}

# The server keeps the text of utility statements, say CREATE USER … PASSWORD 'x'. $1 stays.
_PASSWORD = re.compile(r"(\bpassword\s*=?\s*)(?:E?'(?:[^'\\]|''|\\.)*+'?|(?<==)[^\s'$]+)", re.I)


def sniff(head: bytes, path: Path) -> bool:
    """Recognise its columns."""
    del path
    names = set(tables.header(head))
    return {"query", "calls"} <= names and bool(names & {"total_exec_time", "total_time"})


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all statements."""
    ts_ns = source.started_at_ns if source.started_at_ns is not None else source.modified_ns
    with MetricRows(source, writer) as rows:
        for _, row in tables.rows(source, "query", "calls"):
            add(rows, ts_ns, row)
    writer.note(
        f"{source.name} has sums since the last reset of pg_stat_statements; they are taken as of "
        f"{units.timestamp(ts_ns)}, when the file was written, if --started-at does not say"
    )


def add(rows: MetricRows, ts_ns: int, row: Mapping[str, str], database: str | None = None) -> None:
    """Add one statement: its columns as text, those that are null left out.

    Passwords in statements such as ALTER ROLE, which are kept as they were written, are masked.
    """
    calls = tables.number(row.get("calls"))
    total_ms = tables.number(row.get("total_exec_time") or row.get("total_time"))
    if calls is None or total_ms is None or calls < 0 or total_ms < 0:
        rows.reject("statement without calls and time")
        return
    attributes: dict[str, Value] = {
        "db.system.name": "postgresql",
        "db.query.text": _PASSWORD.sub(rf"\1{masking.MASK}", row["query"]),
    }
    if database is not None:
        attributes["db.namespace"] = database
    for key, name in (("queryid", "db.query.id"), ("dbid", "db.id"), ("userid", "user.id")):
        if row.get(key):
            attributes[name] = row[key]
    rows.add(ts_ns, "db.client.operation.duration", "s", total_ms / 1000,
             kind="histogram", count=round(calls), attributes=attributes)  # fmt: skip
    for column, (name, unit) in _SUMS.items():
        if value := tables.number(row.get(column)):
            rows.add(ts_ns, name, unit, value, kind="counter", attributes=attributes)
