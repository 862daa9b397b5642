"""The captured spans by column: each is read when it is first asked for."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from perfkit.analysis.vector.forest import Bools, Ints


class Recorded:
    """Columns of captured spans, in one chunk each; some of the spans may be left out.

    A text takes 16 bytes a span even where it is null, so what nobody asks for is not read.
    """

    def __init__(self, spans: pl.LazyFrame) -> None:
        self._spans = spans
        self._columns: dict[str, pl.Series] = {}
        self._kept: Ints | None = None
        self._kinds: dict[str, Bools] = {}

    def __getitem__(self, name: str) -> pl.Series:
        self.read(name)
        return self._columns[name]

    def read(self, *names: str) -> None:
        """Read columns together, of those that are not there yet."""
        lacking = [name for name in names if name not in self._columns]
        if not lacking:
            return
        frame = self._spans.select(lacking).collect()
        for name in lacking:
            # Column by column, so that not all are in memory twice. One of nulls takes no copy.
            column = frame.drop_in_place(name)
            empty = column.null_count() == len(column)
            if column.n_chunks() > 1:
                column = column.clear(len(column)) if empty else column.rechunk()
            self._columns[name] = column if self._kept is None else column.gather(self._kept)

    def select(self, *names: str) -> pl.DataFrame:
        """Return columns as a frame."""
        self.read(*names)
        return pl.DataFrame([self._columns[name] for name in names])

    def attributes_of_open(self) -> pl.DataFrame:
        """Return `row` and `attributes` of the spans that were still open and have any."""
        unended = pl.col("duration_ns").is_null()
        found = (
            self._spans.select("attributes", "duration_ns")
            .with_row_index("row")
            .filter(unended, pl.col("attributes").is_not_null())
            .select(pl.col("row").cast(pl.Int64), "attributes")
            .collect()
        )
        if self._kept is None:
            return found
        kept = pl.DataFrame({"row": self._kept}).with_row_index("place")
        return found.join(kept, on="row").select(
            pl.col("place").cast(pl.Int64).alias("row"), "attributes"
        )

    def pop(self, name: str) -> pl.Series:
        """Return a column and forget it."""
        self.read(name)
        return self._columns.pop(name)

    def keep(self, rows: Ints) -> None:
        """Leave out all spans but those of these rows."""
        self._kept = rows if self._kept is None else self._kept[rows]
        self._columns = {name: column.gather(rows) for name, column in self._columns.items()}
        self._kinds = {}
        for derived in ("host", "scopes"):
            self.__dict__.pop(derived, None)

    @property
    def kept(self) -> Ints | None:
        """Rows of the spans that are kept; None when all are."""
        return self._kept

    @property
    def height(self) -> int:
        """How many spans there are."""
        return len(self["span_id"])

    def is_kind(self, kind: str) -> Bools:
        """Return which spans are of a kind."""
        found = self._kinds.get(kind)
        if found is None:
            found = self["kind"].eq_missing(kind).to_numpy()
            self._kinds[kind] = found
        return found

    @cached_property
    def scopes(self) -> int:
        """How many instrumentation scopes made the spans; no scope counts as one."""
        return self["scope"].n_unique()

    @cached_property
    def host(self) -> NDArray[np.uint64]:
        """A number for service and instance of each span, by which hosts are told apart."""
        self.read("service", "instance")
        codes = self["service"].hash(seed=0).to_numpy() * np.uint64(0x9E3779B97F4A7C15)
        codes += self["instance"].hash(seed=1).to_numpy()
        return codes
