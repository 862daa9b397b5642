"""A workbook for spreadsheets, one sheet a table."""

from __future__ import annotations

import io
from collections.abc import Iterator

import polars as pl
import polars.selectors as cs

from perfkit.errors import InputError, UsageError
from perfkit.exporters.base import Source
from perfkit.exporters.flat import flat, to_pandas

NAME = "xlsx"
SUFFIX = ".xlsx"
TITLE = "a workbook, one sheet a table (needs perfkit[excel])"
VIEWS: tuple[str, ...] = ()
TABLES = True

_SHEETS = (
    *("facts", "endpoints", "tools", "components", "operations", "edges", "queries"),
    *("http_calls", "functions", "contention", "pools", "shifts", "metric_stats"),
)
"""What is written unless tables are chosen: those that people read."""
_MOST_ROWS = 1_048_575
_LONGEST_TEXT = 32_767
"""Limits of the format: rows below the heading, and characters of a cell."""
_UNIX_NS = 10**17
"""Nanoseconds beyond this, three years, are a point in time and not a length of time."""
_LARGEST_INTEGER = 2**53
"""Numbers of the format are doubles: larger integers would lose digits."""


def export(source: Source) -> Iterator[bytes]:
    """Yield the workbook. Raises UsageError without the extra, InputError for too many rows."""
    try:
        import pandas as pd
        import xlsxwriter
    except ImportError as error:
        raise UsageError(
            "XLSX needs XlsxWriter, which is not installed",
            hint="pip install 'perfkit[excel]', or use --format csv",
        ) from error
    del xlsxwriter
    buffer = io.BytesIO()
    # Recorded texts are texts: never a formula, a link or a number.
    options = {
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "strings_to_numbers": False,
        "nan_inf_to_errors": True,
        "in_memory": True,
    }
    with pd.ExcelWriter(buffer, engine="xlsxwriter", engine_kwargs={"options": options}) as book:
        for name in source.chosen or _SHEETS:
            sheet = _sheet(name, source.tables[name].collect())
            to_pandas(sheet).to_excel(book, sheet_name=name[:31], index=False, freeze_panes=(1, 0))
    yield buffer.getvalue()


def _sheet(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    if frame.height > _MOST_ROWS:
        raise InputError(
            f"table {name} has {frame.height:,} rows; a sheet holds {_MOST_ROWS:,}",
            hint="narrow it down with filters, or use --format csv",
        )
    frame = flat(frame).with_columns(cs.string().str.slice(0, _LONGEST_TEXT))
    return frame.with_columns(
        *(_moment(column) for column in _moments(frame)),
        *(pl.col(column).cast(pl.String) for column in _beyond_doubles(frame)),
    ).rename({column: f"{column.removesuffix('_ns')}_utc" for column in _moments(frame)})


def _moments(frame: pl.DataFrame) -> list[str]:
    """Return the columns that are points in time."""
    return [
        name
        for name in frame.columns
        if name.endswith("_ns")
        and frame[name].dtype == pl.Int64
        and _smallest(frame[name]) > _UNIX_NS
    ]


def _beyond_doubles(frame: pl.DataFrame) -> list[str]:
    integers = frame.select(cs.integer()).columns
    large = (name for name in integers if _largest(frame[name]) > _LARGEST_INTEGER)
    return [name for name in large if name not in _moments(frame)]


def _moment(column: str) -> pl.Expr:
    return pl.from_epoch(pl.col(column), time_unit="ns").cast(pl.Datetime("ms"))


def _smallest(values: pl.Series) -> int:
    return int(values.min() or 0)  # type: ignore[arg-type]


def _largest(values: pl.Series) -> int:
    return max(abs(int(values.min() or 0)), abs(int(values.max() or 0)))  # type: ignore[arg-type]
