"""Parts: the Parquet files of a capture's tables, each written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from perfkit import model
from perfkit.batch import Columns
from perfkit.errors import CaptureError, system_error
from perfkit.layout import Wanted, read_index
from perfkit.manifest import FORMAT_VERSION, atomic_write
from perfkit.replacement import part_is_gone

FLUSH_ROWS = 1 << 20
"""Rows of a part that is large enough."""
_ROW_GROUP_ROWS = 128 * 1024
_ZSTD_LEVEL = 3
_VERSION_KEY = "perfkit.format_version"


def conform(table: model.Table, columns: Columns | pl.DataFrame) -> pl.DataFrame:
    """Return the columns as a frame of the table's schema; absent columns are null."""
    unknown = set(columns.keys() if isinstance(columns, Mapping) else columns.columns)
    unknown -= table.schema.keys()
    if unknown:
        raise ValueError(f"table {table.name} has no column {sorted(unknown)}")
    if isinstance(columns, pl.DataFrame):
        present = set(columns.columns)
        return columns.select(
            pl.col(name).cast(dtype) if name in present else pl.lit(None, dtype=dtype).alias(name)
            for name, dtype in table.schema.items()
        )
    given = [
        pl.Series(name, columns[name], dtype=dtype)
        for name, dtype in table.schema.items()
        if name in columns
    ]
    # Not a series for each that is absent: most are, and most frames are small.
    return pl.concat([table.empty(), pl.DataFrame(given)], how="diagonal")


def write_part(capture: Path, table: str, name: str, frame: pl.DataFrame) -> int:
    """Write one Parquet part, whole or not at all; returns its rows. Rows are put in time order."""
    time_column = model.BY_NAME[table].time
    if time_column is not None:
        frame = frame.sort(time_column, maintain_order=True)
    write_frame(capture, table, name, frame)
    return frame.height


def write_frame(
    folder: Path,
    table: str,
    name: str,
    frame: pl.DataFrame,
    metadata: Mapping[str, str] | None = None,
    row_group_rows: int = _ROW_GROUP_ROWS,
) -> None:
    """Write one Parquet part, whole or not at all, with its rows as they are.

    Raises OSError, as on a full disk.
    """
    directory = folder / table
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.parquet"
    with atomic_write(path) as file:
        try:
            frame.write_parquet(
                file,
                compression="zstd",
                compression_level=_ZSTD_LEVEL,
                row_group_size=row_group_rows,
                metadata={_VERSION_KEY: str(FORMAT_VERSION), **(metadata or {})},
            )
        except pl.exceptions.PolarsError as error:
            raise system_error(error, path) or error from None


def scan_part(part: Path | str, table: model.Table, wanted: Wanted | None) -> pl.LazyFrame:
    """Return the rows of a part, or of its spans those that may belong to what is wanted.

    Raises CaptureError when it is damaged, of another version or of another table.
    """
    try:
        metadata = pl.read_parquet_metadata(part)
        version = metadata.get(_VERSION_KEY)
        frame = pl.scan_parquet(part)
        schema = frame.collect_schema()
    except FileNotFoundError as error:
        raise part_is_gone(error) or error from None
    except (OSError, pl.exceptions.PolarsError) as error:
        raise CaptureError(
            f"{part}: damaged ({str(error).splitlines()[0]})",
            hint="move this file away; the rest of the capture stays readable",
        ) from error
    if version != str(FORMAT_VERSION):
        raise CaptureError(
            f"{part}: format version {version}, this perfkit reads {FORMAT_VERSION}",
            hint="read it with the perfkit that wrote it, or capture again",
        )
    if not schema.items() <= table.schema.items():
        raise CaptureError(f"{part}: its columns are not those of the table {table.name}")
    if wanted is not None and table is model.SPANS:
        index = read_index(metadata)
        if index is not None:
            ranges = wanted.ranges(index)
            frame = pl.concat(frame.slice(*rows) for rows in ranges or [(0, 0)])
    # A column that came later than the part is null in it.
    missing = table.schema.keys() - schema.keys()
    return frame.select(
        pl.lit(None, dtype).alias(name) if name in missing else name
        for name, dtype in table.schema.items()
    )
