"""Columns of the tables in the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perfkit.report.templates import heading

_NUMBERS = (int, float)


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
        numeric = all(isinstance(value, _NUMBERS) for value in values)
        columns.append(Column(key, heading(key), "number" if numeric else "text"))
    return columns
