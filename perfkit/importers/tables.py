"""CSV with a header: its columns by name, row by row, with places for messages."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from perfkit.errors import InputError
from perfkit.importers.base import Source

_MAX_COLUMNS = 2000


def header(head: bytes, separators: str = ",") -> list[str]:
    """Return the names of the columns in the first line; empty when it is no CSV."""
    line = head.lstrip(b"\xef\xbb\xbf").split(b"\n", 1)[0]
    try:
        names = next(csv.reader([line.decode()], delimiter=_separator(line, separators)), [])
    except (csv.Error, UnicodeDecodeError):
        return []
    return [name.strip() for name in names] if 1 < len(names) < _MAX_COLUMNS else []


def _separator(line: bytes, separators: str) -> str:
    return max(separators, key=lambda one: line.count(one.encode()))


def rows(
    source: Source, *needed: str, separators: str = ","
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (place, column -> text). A row of another length raises InputError.

    So does a header without one of the `needed` columns.
    """
    numbers: list[int] = [0]

    def texts() -> Iterator[str]:
        for number, line in source.lines():
            numbers[0] = number
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8") + "\n"
            except UnicodeDecodeError:
                source.pass_over(InputError("not UTF-8", where=f"{source}, line {number}"))

    first = source.head().split(b"\n", 1)[0]
    reader = csv.reader(texts(), delimiter=_separator(first, separators))
    names: list[str] | None = None
    try:
        for values in reader:
            place = f"{source}, line {numbers[0]}"
            if names is None:
                names = [name.strip() for name in values]
                missing = [name for name in needed if name not in names]
                if missing:
                    raise InputError(f"no column {missing[0]}", where=place)
                continue
            if len(values) != len(names):
                source.pass_over(
                    InputError(f"{len(values)} values under {len(names)} columns", where=place)
                )
                continue
            yield place, dict(zip(names, values, strict=True))
    except csv.Error as error:
        raise InputError(f"not CSV: {error}", where=f"{source}, line {numbers[0]}") from error


def number(text: str | None) -> float | None:
    """Read a number; null when it is none or not finite."""
    try:
        value = float(text) if text else None
    except ValueError:
        return None
    return value if value is not None and abs(value) < 1e300 else None
