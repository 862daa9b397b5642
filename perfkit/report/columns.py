"""Columns of the tables in the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perfkit.report.templates import heading

_NUMBERS = (int, float)
_LONG = 30
"""Characters beyond which a text is broken into lines."""


@dataclass(frozen=True)
class Column:
    """One column: `kind` is `text`, `number`, or `share` (a ratio drawn as a bar)."""

    key: str
    title: str
    kind: str = "number"
    classes: str = ""
    hint: str = ""


def guess(rows: list[dict[str, Any]]) -> list[Column]:
    """Return columns for rows of any shape: numbers to the right, ids of rows left out."""
    columns = []
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(key) for row in rows if row.get(key) is not None]
        if not values or key == "row" or key.endswith("_row"):
            continue
        if all(isinstance(value, _NUMBERS) and not isinstance(value, bool) for value in values):
            columns.append(Column(key, heading(key)))
        else:
            long = any(len(str(value)) > _LONG for value in values)
            columns.append(Column(key, heading(key), "text", "wrap" if long else "nowrap"))
    return columns


def plain(value: Any) -> Any:
    """Return a value of any kind as what a cell can hold: a number, text, or null."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(str(plain(one)) for one in value)
    return value if value is None or isinstance(value, (*_NUMBERS, str)) else str(value)
