"""Where a history lies: a folder, or a prefix in object storage, which Polars reads and writes.

In both a file is there whole or not at all: renamed into its place, or put by one request.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from perfkit.capture import atomic_write
from perfkit.errors import CaptureError, UsageError
from perfkit.remote import unreadable, url_of


def shown(folder: Path) -> str:
    """Return the folder, or its URL, as it was given."""
    return url_of(folder) or str(folder)


def places(folder: Path, schema: Mapping[str, pl.DataType]) -> list[str]:
    """Return the paths or URLs of all files, sorted. Raises UsageError, CaptureError."""
    url = url_of(folder)
    if url is not None:
        return _listed(f"{url}/*.parquet", schema)
    if not folder.is_dir():
        raise UsageError(
            f"{folder}: no such directory", hint=f"begin one: perfkit history add CAPTURE {folder}"
        )
    return sorted(map(str, folder.glob("*.parquet")))


def _listed(everything: str, schema: Mapping[str, pl.DataType]) -> list[str]:
    files = pl.scan_parquet(
        everything,
        include_file_paths="place",
        schema=dict(schema),
        missing_columns="insert",
        extra_columns="ignore",
    )
    try:
        return sorted(files.select(pl.col("place").unique()).collect()["place"])
    except (OSError, pl.exceptions.PolarsError) as error:
        raise unreadable(everything, error) from error


def put(folder: Path, name: str, frame: pl.DataFrame, metadata: dict[str, str]) -> str:
    """Write a file that was not there, and return its path or URL. Raises CaptureError."""
    url = url_of(folder)
    if url is None:
        with atomic_write(folder / name) as file:
            frame.write_parquet(file, compression="zstd", metadata=metadata)
        return str(folder / name)
    place = f"{url}/{name}"
    try:
        frame.write_parquet(place, compression="zstd", metadata=metadata)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CaptureError(
            f"{place}: cannot be written ({reason})",
            hint="is there such a bucket, and may these credentials write there?",
        ) from error
    return place
