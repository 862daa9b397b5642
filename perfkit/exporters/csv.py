"""One table as CSV (RFC 4180, UTF-8, with a header)."""

from __future__ import annotations

from collections.abc import Iterator

from perfkit.errors import UsageError
from perfkit.exporters.base import Source
from perfkit.exporters.flat import flat, harmless

NAME = "csv"
SUFFIX = ".csv"
TITLE = "one table, for spreadsheets and other programs"
VIEWS: tuple[str, ...] = ()
TABLES = True

_ROWS_A_PIECE = 100_000


def export(source: Source) -> Iterator[bytes]:
    """Yield the table that was chosen. Raises UsageError when that is not exactly one."""
    if len(source.chosen) != 1:
        raise UsageError(
            "a CSV file has one table: say which with --table",
            hint="--table endpoints, say; all of them: perfkit query CAPTURE --tables",
        )
    frame = source.tables[source.chosen[0]].collect()
    yield harmless(flat(frame.head(0))).write_csv().encode()
    for piece in frame.iter_slices(_ROWS_A_PIECE):
        yield harmless(flat(piece)).write_csv(include_header=False).encode()
