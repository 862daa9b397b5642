"""A live PostgreSQL: its `pg_stat_statements` with how its tables are read, and the MCP gateway's
tables when it holds them.

Everything is read in one read-only transaction, with a limit on the time of each statement. The
URL is shown and stored without user, password and options; libpq's own ways to give a password
(PGPASSWORD, ~/.pgpass, a service file) keep it off the command line.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfkit import units
from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.formats import times
from perfkit.importers import gateway_db, gateway_tables, pg_stat_statements
from perfkit.importers.base import Source
from perfkit.importers.rows import MetricRows

if TYPE_CHECKING:
    from psycopg import Connection

NAME = "postgresql"

_CONNECT_TIMEOUT_S = 10
# Enough for a full table of 10,000 statements on a machine in trouble, which is when it is asked.
_STATEMENT_TIMEOUT = "30s"
_ROWS_AT_ONCE = 10_000
_AS_TEXT = ("json", "jsonb", "timestamptz", "timestamp", "uuid", "bytea", "interval")
_HIDDEN = "<insufficient privilege>"
_SCAN_COUNTS = {
    "seq_scan": "counter",
    "seq_tup_read": "counter",
    "idx_scan": "counter",
    "n_live_tup": "gauge",
}
_SCANS = (
    f"SELECT current_database() AS datname, schemaname, relname, {', '.join(_SCAN_COUNTS)}"  # noqa: S608
    " FROM pg_stat_user_tables WHERE seq_scan > 0 ORDER BY seq_tup_read DESC LIMIT 1000"
)


def read(url: str, writer: CaptureWriter) -> None:
    """Read what the database at a `postgresql://` URL has.

    Raises InputError when it cannot be reached, when it has neither, and when reading fails.
    """
    psycopg = _library()
    label = "postgresql://"
    try:
        label = _label(url)
        with _connected(url) as connection:
            found = _read(connection, label, writer)
    except (psycopg.Error, ValueError) as error:
        raise _failure(error, label) from None  # its context may hold the URL
    if not found:
        raise InputError(
            "no extension pg_stat_statements here, and no tables of the MCP gateway",
            where=label,
            hint="shared_preload_libraries = 'pg_stat_statements', restart, then "
            "CREATE EXTENSION pg_stat_statements; in the database that the URL names",
        )


def _library() -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise InputError(
            "reading a live PostgreSQL needs psycopg, which is not installed",
            hint="pip install 'perfkit[postgresql]'",
        ) from error
    return psycopg


def _label(url: str) -> str:
    """Return host, port and database of a URL and nothing else of it."""
    from psycopg.conninfo import conninfo_to_dict

    parts = conninfo_to_dict(url)
    host = str(parts.get("host") or parts.get("hostaddr") or "")
    port = str(parts.get("port") or "")
    # A password with an @ or a / in it, or without a user before it, ends up here.
    if "@" in host or not re.fullmatch(r"[\d,]*", port):
        raise ValueError
    return f"postgresql://{host}{f':{port}' if port else ''}/{parts.get('dbname') or ''}"


def _failure(error: Exception, label: str) -> InputError:
    import psycopg

    if label == "postgresql://" or isinstance(error, UnicodeError):
        # What libpq says of a URL that it cannot parse quotes the URL, password and all.
        reason = "not a valid URL" if label == "postgresql://" else "text that is not UTF-8 in it"
        return InputError(
            reason, where=label, hint="postgresql://USER@HOST:PORT/DATABASE, password in PGPASSWORD"
        )
    diagnosed = getattr(getattr(error, "diag", None), "message_primary", None)
    reason = " ".join(str(diagnosed or error).split())[:300]
    hint = None
    if isinstance(error, psycopg.errors.QueryCanceled):
        hint = f"each statement may take {_STATEMENT_TIMEOUT}; is the database overloaded?"
    elif isinstance(error, psycopg.errors.InsufficientPrivilege):
        hint = "GRANT pg_read_all_stats to the user, or SELECT on the gateway's tables"
    return InputError(reason, where=label, hint=hint)


@contextlib.contextmanager
def _connected(url: str) -> Iterator[Connection[dict[str, Any]]]:
    import psycopg
    from psycopg.rows import dict_row
    from psycopg.types.numeric import FloatLoader
    from psycopg.types.string import TextLoader

    with psycopg.connect(
        url,
        connect_timeout=_CONNECT_TIMEOUT_S,
        application_name="perfkit import",
        client_encoding="UTF8",
        row_factory=dict_row,
    ) as connection:
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        for name in _AS_TEXT:
            connection.adapters.register_loader(name, TextLoader)
        connection.adapters.register_loader("numeric", FloatLoader)
        connection.execute(f"SET LOCAL statement_timeout = '{_STATEMENT_TIMEOUT}'")
        connection.execute("SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'")
        yield connection
        connection.rollback()


def _read(connection: Connection[dict[str, Any]], label: str, writer: CaptureWriter) -> bool:
    tables = _Tables(connection)
    found = False
    if (schema := _schema_of_statements(connection)) is not None:
        _read_statements(tables, schema, label, writer)
        writer.info.sources.append({"name": "import", "format": pg_stat_statements.NAME,
                                    "file": label})  # fmt: skip
        found = True
    if tables.has(gateway_tables.SPANS):
        gateway_tables.read(tables, writer)
        writer.info.sources.append({"name": "import", "format": gateway_db.NAME, "file": label})
        found = True
    return found


def _schema_of_statements(connection: Connection[dict[str, Any]]) -> str | None:
    row = connection.execute(
        "SELECT quote_ident(nspname) AS schema FROM pg_extension"
        " JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'pg_stat_statements'"
    ).fetchone()
    return None if row is None else str(row["schema"])


def _read_statements(tables: _Tables, schema: str, label: str, writer: CaptureWriter) -> None:
    [clock] = tables.query("SELECT clock_timestamp() AS now")
    now_ns = times.from_text(clock["now"])
    assert now_ns is not None
    names = {row["oid"]: row["datname"] for row in tables.query("SELECT oid, datname"
                                                                " FROM pg_database")}  # fmt: skip
    hidden = 0
    # `schema` is quoted by the server.
    with MetricRows(Source(Path(), label=label), writer) as rows:
        _add_scans(rows, tables, now_ns)
        for row in tables.query(f"SELECT * FROM {schema}.pg_stat_statements"):  # noqa: S608
            if row["query"] in (None, _HIDDEN):
                hidden += 1
                continue
            texts = {name: str(value) for name, value in row.items() if value is not None}
            pg_stat_statements.add(rows, now_ns, texts, names.get(row.get("dbid")))
    if hidden:
        writer.lose("statement of another user", hidden, "its text may not be read by this one; "
                    "GRANT pg_read_all_stats")  # fmt: skip
    since = ""
    if tables.has(f"{schema}.pg_stat_statements_info"):  # from PostgreSQL 14 on
        [info] = tables.query(f"SELECT * FROM {schema}.pg_stat_statements_info")  # noqa: S608
        since = f", at {info['stats_reset']}"
        if info["dealloc"]:
            writer.note(f"{label}: the least executed statements were dropped from "
                        f"pg_stat_statements {info['dealloc']} times; raise "
                        "pg_stat_statements.max")  # fmt: skip
    writer.note(f"{label} has sums since the last reset of pg_stat_statements{since}; they are "
                f"taken as of {units.timestamp(now_ns)}, when they were read")  # fmt: skip


def _add_scans(rows: MetricRows, tables: _Tables, now_ns: int) -> None:
    """Add how the tables of this database were read, named as postgres_exporter does."""
    for row in tables.query(_SCANS):
        attributes = {name: row[name] for name in ("datname", "schemaname", "relname")}
        for name, kind in _SCAN_COUNTS.items():
            if row[name] is not None:
                rows.add(now_ns, f"pg_stat_user_tables_{name}", "1", float(row[name]),
                         kind=kind, attributes=attributes)  # fmt: skip


class _Tables:
    """The tables of a PostgreSQL database, those on its search path."""

    INSERTED = "ctid"

    def __init__(self, connection: Connection[dict[str, Any]]) -> None:
        self._connection = connection

    def has(self, table: str) -> bool:
        """Whether there is such a table or view."""
        row = self._connection.execute("SELECT to_regclass(%s) AS oid", (table,)).fetchone()
        return row is not None and row["oid"] is not None

    def rows(
        self, table: str, order: str = "1", columns: str = "*"
    ) -> Iterator[gateway_tables.Row]:
        """Yield the rows of a table."""
        if self.has(table):
            yield from self.query(f"SELECT {columns} FROM {table} ORDER BY {order}")  # noqa: S608

    def query(self, sql: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of a query, some at a time."""
        with self._connection.cursor(name="perfkit") as cursor:
            cursor.itersize = _ROWS_AT_ONCE
            yield from cursor.execute(sql.encode())
