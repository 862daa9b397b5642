"""The SQLite database of the MCP gateway (ContextForge): its observability tables.

The database may be in use: it is opened read-only, with its write-ahead log.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.importers import gateway_tables
from perfkit.importers.base import Format, Source

NAME = "mcp-gateway-db"
FORMAT = Format(
    title="The MCP gateway's database, SQLite or PostgreSQL",
    made_by="the file `gateway.db` of the gateway, also while it runs; `perfkit import postgresql://HOST/DB`",
    recognised_by="SQLite with one of its observability tables",
    gives="spans, span events, metrics",
    lacks="parents (inferred from times, and marked so)",
)

_MAGIC = b"SQLite format 3\0"
# The module fails to decode its own message when the schema in it is damaged.
_DAMAGED = (sqlite3.Error, UnicodeDecodeError)


def sniff(head: bytes, path: Path) -> bool:
    """Recognise an SQLite database with the gateway's table of spans, or a damaged database."""
    if not head.startswith(_MAGIC):
        return False
    try:
        with _open(path) as database:
            return _Tables(database).has(gateway_tables.SPANS)
    except _DAMAGED:
        return True


def read(source: Source, writer: CaptureWriter) -> None:
    """Read spans, events and metrics."""
    if source.compressed:
        raise InputError("a compressed database; decompress it and import the result")
    try:
        with _open(source.path) as database:
            gateway_tables.read(_Tables(database), writer)
    except _DAMAGED as error:
        # SQLite quotes the schema in its messages, line ends and all.
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"not a readable SQLite database ({reason})",
            hint="what is left of it: sqlite3 FILE .recover | sqlite3 NEW, and import NEW",
        ) from error


@contextlib.contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    """Open read-only and leave no trace.

    In WAL mode even a reader makes files beside the database. Without a log there is no other user,
    so it can be opened as immutable instead, which also works where nothing may be written.
    """
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    with path.open("rb") as file:
        wal_mode = file.read(20)[18:] == b"\2\2"
    if wal_mode and not path.with_name(f"{path.name}-wal").exists():
        uri += "&immutable=1"
    with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as database:
        database.row_factory = sqlite3.Row
        database.text_factory = lambda raw: raw.decode("utf-8", "replace")
        database.execute("BEGIN")  # one state of a database that is being written
        yield database


class _Tables:
    """The tables of an SQLite database."""

    INSERTED = "rowid"

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def has(self, table: str) -> bool:
        """Whether there is such a table or view."""
        found = self._database.execute(
            "SELECT 1 FROM sqlite_master WHERE type IN ('table', 'view') AND name = ?", (table,)
        )
        return found.fetchone() is not None

    def rows(
        self, table: str, order: str = "1", columns: str = "*"
    ) -> Iterator[gateway_tables.Row]:
        """Yield the rows of a table."""
        if not self.has(table):
            return
        found = self._database.execute(f"SELECT {columns} FROM {table} ORDER BY {order}")  # noqa: S608
        for row in found:
            yield dict(zip(row.keys(), tuple(row), strict=True))
