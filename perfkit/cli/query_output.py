"""How the result of a query is written: for people, for spreadsheets, for programs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perfkit import units
from perfkit.cli import text
from perfkit.cli.files import check_writable, write_whole
from perfkit.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

_UNIX_NS = 10**17
"""Nanoseconds beyond this, three years, are a point in time and not a length of time."""
_MIN_WIDTH = 12
_LONGEST_CELL = 60
_FEW_ROWS = 3


def write(frame: pl.DataFrame, form: str, output: Path | None) -> None:
    """Write a result to a file, or to standard output. Raises UsageError and OSError."""
    if output is not None:
        check_writable(output)
    elif form == "parquet" and sys.stdout.isatty():
        raise UsageError("Parquet is not for a terminal", hint="give a file: -o result.parquet")
    content = FORMATS[form](frame)
    if output is not None:
        size = write_whole(output, content)
        click.echo(f"{output} ({frame.height:,} rows, {units.size(size)})", err=True)
    elif sys.stdout.isatty():
        click.echo(_harmless(content.decode()), nl=False)
    else:
        click.echo(content, nl=False)


def _harmless(content: str) -> str:
    """Keep control characters of recorded texts out of the terminal."""
    return "\n".join(
        "".join(
            char if char.isprintable() or char == "\t" else "\N{REPLACEMENT CHARACTER}"
            for char in line
        )
        for line in content.split("\n")
    )


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def _json(frame: pl.DataFrame) -> bytes:
    """Return an array of objects; NaN and infinities, which JSON lacks, are null."""
    import polars as pl
    import polars.selectors as cs

    from perfkit.exporters.flat import hexadecimal

    finite = frame.with_columns(pl.when(cs.float().is_finite()).then(cs.float()).name.keep())
    return (hexadecimal(finite).write_json() + "\n").encode()


def _csv(frame: pl.DataFrame) -> bytes:
    """Return CSV with a header; a list is one cell, and a text that a sheet would run is marked."""
    from perfkit.exporters.flat import flat, harmless

    return harmless(flat(frame)).write_csv().encode()


def _table(frame: pl.DataFrame) -> bytes:
    """Return a table that fits the terminal; few rows that do not fit are written upright."""
    from perfkit.exporters.flat import hexadecimal

    if frame.is_empty():
        click.echo("no rows", err=True)
    writers = [_writer(name, frame[name]) for name in frame.columns]
    rows = [
        [writer(value) for writer, value in zip(writers, row, strict=True)]
        for row in hexadecimal(frame).iter_rows()
    ]
    right = [frame[name].dtype.is_numeric() for name in frame.columns]
    lines, left_out = _grid(frame.columns, rows, right)
    if left_out and 0 < len(rows) <= _FEW_ROWS:
        lines, left_out = _upright(frame.columns, rows), []
    if left_out:
        more = ", ".join(left_out)
        click.echo(text.plain(f"too wide, left out: {more} (--format csv has all)"), err=True)
    return "".join(f"{line}\n" for line in lines).encode()


def _grid(
    names: list[str], rows: list[list[str]], right: list[bool]
) -> tuple[list[str], list[str]]:
    """Return lines as wide as the terminal, and the columns that found no room."""
    widths = [
        max(len(name), *(min(len(row[at]), _LONGEST_CELL) for row in rows), 0)
        for at, name in enumerate(names)
    ]
    room = text.terminal_width()
    # Texts give way first, the widest of them most; numbers must stay whole.
    while _total(widths) > room:
        flexible = [at for at, width in enumerate(widths) if not right[at] and width > _MIN_WIDTH]
        if not flexible:
            break
        widest = max(flexible, key=lambda at: widths[at])
        widths[widest] = max(_MIN_WIDTH, widths[widest] - (_total(widths) - room))
    shown = len(names)
    while shown > 1 and _total(widths[:shown]) > room:
        shown -= 1
    # What columns that are left out would have taken goes back to the texts.
    spare = room - _total(widths[:shown])
    for at in range(shown):
        if not right[at] and rows:
            wanted = min(max(len(row[at]) for row in rows), _LONGEST_CELL)
            grown = min(max(wanted - widths[at], 0), spare)
            widths[at] += grown
            spare -= grown

    def line(cells: list[str]) -> str:
        fitted = [
            text.shorten(cell, max(width, 1)) for cell, width in zip(cells, widths, strict=False)
        ]
        return "  ".join(
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(fitted, widths, right, strict=False)
        ).rstrip()

    return [line(cells[:shown]) for cells in (names, *rows)], names[shown:]


def _total(widths: list[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def _upright(names: list[str], rows: list[list[str]]) -> list[str]:
    """Return one line a value, and an empty line between rows."""
    width = max(len(name) for name in names)
    room = max(text.terminal_width() - width - 2, _MIN_WIDTH)
    blocks = [
        [
            f"{name:{width}}  {text.shorten(value, room)}"
            for name, value in zip(names, row, strict=True)
        ]
        for row in rows
    ]
    return "\n\n".join("\n".join(block) for block in blocks).split("\n")


def _writer(name: str, values: pl.Series) -> Callable[[Any], str]:
    """Return how values of a column are written: its name says the unit."""
    from perfkit.exporters.flat import IDS

    number: Callable[[Any], str] = units.number
    if name in IDS:
        number = str
    elif name.endswith("_ns"):
        number = _nanoseconds
    elif name.endswith("_ratio"):
        number = units.percent
    elif name.endswith("_bytes"):
        number = units.size
    elif name.endswith(("_row", "_p", "pid", "tid")) or name in ("row", "port"):
        number = _as_is
    if values.dtype.is_numeric():
        return number

    def words(value: Any) -> str:
        if value is None:
            return units.MISSING
        if isinstance(value, list):
            return text.plain("; ".join(words(one) for one in value))
        return text.plain(value)

    return words


def _nanoseconds(value: int | float | None) -> str:
    if value is not None and value > _UNIX_NS:
        return units.timestamp(int(value))
    return units.duration(value)


def _as_is(value: Any) -> str:
    if value is None:
        return units.MISSING
    return f"{value:.3g}" if isinstance(value, float) else str(value)


FORMATS: dict[str, Callable[[pl.DataFrame], bytes]] = {
    "table": _table,
    "csv": _csv,
    "json": _json,
    "parquet": _parquet,
}
