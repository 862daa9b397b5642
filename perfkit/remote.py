"""Captures in object storage (S3, Google Cloud Storage, Azure), read where they are by Polars.

Credentials and endpoint are found as Polars finds them: AWS_ACCESS_KEY_ID, AWS_REGION,
AWS_ENDPOINT_URL and so on, or the machine's role. No capture is ever written there.
"""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from perfkit import model
from perfkit.errors import CaptureError
from perfkit.manifest import INFO_NAME, CaptureInfo

_SCHEMES = "s3|s3a|gs|gcs|az|azure|abfs|abfss|adl"
# A path folds the two slashes into one.
_URL = re.compile(rf"({_SCHEMES}):/+(.+)")
_AWS = "AWS_ACCESS_KEY_ID, AWS_REGION"
_VARIABLES = {
    "g": "GOOGLE_APPLICATION_CREDENTIALS",
    "a": "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY",
}
"""How a URL of a provider begins -> where Polars looks for credentials."""
_UNFINISHED = (
    "This capture was not finished when it was read: what was received last may be missing."
)


def url_of(path: Path) -> str | None:
    """Return the URL that was given as a path; None when it is one."""
    found = _URL.fullmatch(str(path))
    return f"{found[1]}://{found[2].rstrip('/')}" if found else None


def read_info(url: str) -> CaptureInfo:
    """Return what the capture at `url` says of itself. Raises CaptureError."""
    place = f"{url}/{INFO_NAME}"
    try:
        text = "\n".join(pl.read_lines(place).to_series())
    except FileNotFoundError as error:
        raise CaptureError(
            f"{url}: no such capture (there is no {INFO_NAME})",
            hint="copy the whole folder there, NAME.perfkit with all that is in it",
        ) from error
    except (OSError, pl.exceptions.PolarsError) as error:
        raise unreadable(place, error) from error
    info = CaptureInfo.from_text(text, place)
    if info.finished_ns is None:
        info.note(_UNFINISHED)
    return info


class RemoteParts:
    """The parts of a capture at a URL; those that exist when a table is first asked for."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._parts: dict[str, list[str]] = {}

    def of(self, table: str) -> list[str]:
        """Return the URLs of a table's Parquet files. Raises CaptureError."""
        if table not in self._parts:
            self._parts[table] = self._listed(table)
        return self._parts[table]

    def _listed(self, table: str) -> list[str]:
        everything = f"{self._url}/{table}/part-*.parquet"
        files = pl.scan_parquet(
            everything,
            include_file_paths="part_url",
            schema=model.BY_NAME[table].schema,
            missing_columns="insert",
        )
        try:
            return sorted(files.select(pl.col("part_url").unique()).collect()["part_url"])
        except (OSError, pl.exceptions.PolarsError) as error:
            raise unreadable(everything, error) from error


def unreadable(place: str, error: Exception) -> CaptureError:
    """Return what to raise for a place that Polars cannot read."""
    variables = next(
        (known for start, known in _VARIABLES.items() if place.startswith(start)), _AWS
    )
    reason = re.sub(r"\s+", " ", str(error))[:200]
    return CaptureError(
        f"{place}: cannot be read ({reason})",
        hint=f"are the credentials set, as {variables} …?",
    )
