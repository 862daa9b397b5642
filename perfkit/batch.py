"""A batch: new rows for several tables, as columns; what parsers return and writers take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Columns = Mapping[str, Sequence[Any]]
"""Column name -> values, all of one length. Columns that are left out are null."""


@dataclass
class Batch:
    """Rows by table name, and what the parser could not take, as reason -> count."""

    tables: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)

    def columns(self, table: str, names: Sequence[str]) -> dict[str, list[Any]]:
        """Return the columns of `table` to append to, made when absent."""
        return self.tables.setdefault(table, {name: [] for name in names})

    def add_rows(self, table: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Append rows whose values are in the order of `names`.

        Further calls may add other columns to the same rows.
        """
        if rows:
            columns = self.columns(table, ())
            for name, values in zip(names, zip(*rows, strict=True), strict=True):
                columns.setdefault(name, []).extend(values)

    def reject(self, reason: str, count: int = 1) -> None:
        """Count something that was refused; the reason is short and the same for equal cases."""
        self.rejected[reason] = self.rejected.get(reason, 0) + count

    def rows(self, table: str) -> int:
        """Return the number of rows that the batch has for `table`."""
        columns = self.tables.get(table)
        return len(next(iter(columns.values()))) if columns else 0
