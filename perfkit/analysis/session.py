"""Tables of one capture, captured and derived, each computed once.

Analysis adds tables: a derived table is a function from tables to a frame, registered in
`perfkit.analysis.DERIVED`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
import polars as pl

from perfkit import freed, model
from perfkit.analysis.filters import Filters
from perfkit.analysis.vector import plausible
from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.rows import rows_or_null
from perfkit.capture import Capture
from perfkit.sql.checked import Query
from perfkit.sql.execute import Limits, run_query
from perfkit.sql.write import Value

T = TypeVar("T")
R = TypeVar("R")
Chosen = Mapping[str, Sequence[str]]
"""Names of tables with some columns of each."""
Frames = Mapping[str, pl.DataFrame]


@dataclass(frozen=True)
class Derived:
    """A derived table: its name, what one row is, what it reads, and the function that makes it."""

    name: str
    row: str
    needs: tuple[str, ...]
    compute: Callable[[Tables], pl.DataFrame | pl.LazyFrame]
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column name -> what it means."""
    backbone: Derived | None = None
    """Some of its columns in a table of the same rows, which takes less to make."""


class Tables(Mapping[str, pl.LazyFrame]):
    """All tables of a capture by name. Derived ones are computed when first asked for."""

    def __init__(
        self, capture: Capture, filters: Filters | None = None, *, roots_stand_in: bool = True
    ) -> None:
        freed.keep()
        self.capture = capture
        self.filters = filters or Filters()
        self.roots_stand_in = roots_stand_in
        """Whether roots of any kind are requests where there are no others."""
        self._frames: dict[str, pl.DataFrame] = {}
        self._snapshots: dict[str, pl.LazyFrame] = {}
        self.most_at_once: int | None = None
        """So many spans should be in memory at once; None when all of them are."""
        self._computing: list[str] = []
        self._whole: Tables | None = None
        self._made_once: dict[Callable[[Tables], Any], Any] = {}

    def __getitem__(self, name: str) -> pl.LazyFrame:
        if name in model.BY_NAME:
            return self._captured(name)
        return self.frame(name).lazy()

    def __iter__(self) -> Iterator[str]:
        yield from model.BY_NAME
        yield from derived_tables()

    def __len__(self) -> int:
        return len(model.BY_NAME) + len(derived_tables())

    def frame(self, name: str) -> pl.DataFrame:
        """Return a table as a frame. Derived tables stay in memory for the life of this object."""
        frame = self._frames.get(name)
        if frame is None:
            frame = self._compute(name)
            self._frames[name] = frame
        return frame

    def columns(self, name: str, *columns: str) -> pl.DataFrame:
        """Return some columns of a table as a frame: of a large table take no more than needed."""
        if name not in self._frames and set(columns) <= _backbone_columns(name):
            return self.backbone(name).select(columns)
        return self.frame(name).select(columns)

    def backbone(self, name: str) -> pl.DataFrame:
        """Return the backbone of a derived table that has one."""
        backbone = derived_tables()[name].backbone
        assert backbone is not None
        frame = self._frames.get(backbone.name)
        if frame is None:
            frame = self._frames[backbone.name] = self._made(backbone)
        return frame

    def snapshot(self, name: str) -> pl.LazyFrame:
        """Return a captured table whose rows stay the same, in the same order, however often it is
        read: new parts of the capture do not count.
        """
        if name not in self._snapshots:
            self._snapshots[name] = self._captured(name)
        return self._snapshots[name]

    def picked(self, name: str, rows: Ints, *columns: str) -> pl.DataFrame:
        """Return columns of some rows of a table that has the rows of `tree`, in their order."""
        return self.columns(name, *columns)[rows]

    def looked_up(self, name: str, rows: pl.Series, column: str) -> pl.Series:
        """Return a column of such a table at some rows; null where the row is null."""
        known = rows.is_not_null().to_numpy()
        found = self.picked(name, rows.drop_nulls().to_numpy(), column)[column]
        return found.gather(rows_or_null(np.where(known, np.cumsum(known) - 1, -1)))

    def pieces(self, columns: Chosen) -> Iterator[pl.DataFrame]:
        """Yield columns of tables that have the same rows, side by side, some rows at a time."""
        yield pl.concat(
            (self.columns(name, *chosen) for name, chosen in columns.items()), how="horizontal"
        )

    def shards_of(self, *names: str) -> Iterator[Mapping[str, pl.LazyFrame]]:
        """Yield tables whose rows belong to traces, some traces at a time, each with all rows."""
        yield {name: self[name] for name in names}

    def where(self, name: str, condition: pl.Expr, *columns: str) -> pl.DataFrame:
        """Return columns of the rows of such a table for which a condition holds."""
        return pl.concat(
            shard[name].filter(condition).select(columns).collect()
            for shard in self.shards_of(name)
        )

    def cuts(self) -> Ints:
        """Return at which rows of `tree` the pieces of `each_piece` begin, and where it ends."""
        return np.array([0, self.columns("tree", "row").height])

    def each_piece(
        self, columns: Chosen, work: Callable[[Frames, T], R], items: Sequence[T]
    ) -> list[R]:
        """Return what `work` makes of each piece of tables whose rows belong to traces.

        Pieces are as `cuts` says; a trace is in one of them. Rows are numbered within the piece,
        from 0, in the frames as in the items, of which there is one for each piece. The work may be
        done elsewhere: `work` is a function of a module.
        """
        (item,) = items
        frames = {name: self.columns(name, *chosen) for name, chosen in columns.items()}
        return [work(frames, item)]

    def each_spilled(
        self, name: str, columns: Chosen, work: Callable[[Frames], tuple[R, pl.DataFrame]]
    ) -> list[tuple[R, pl.LazyFrame]]:
        """Return what `work` makes of each piece, as `each_piece` does, and beside it one large
        frame: where pieces are shards it stays in a file of that name, to be read in parts.
        """
        frames = {name: self.columns(name, *chosen) for name, chosen in columns.items()}
        result, large = work(frames)
        return [(result, large.lazy())]

    def once(self, make: Callable[[Tables], R]) -> R:
        """Return what `make` makes of these tables; it is made once for several tables."""
        if make not in self._made_once:
            self._made_once[make] = make(self)
        return cast("R", self._made_once[make])

    def answer(
        self,
        query: Query,
        params: Mapping[str, Value],
        limits: Limits,
        beside: Mapping[str, pl.LazyFrame] | None = None,
    ) -> pl.DataFrame:
        """Return the result of a query over these tables, and others beside them.

        Raises TooMuch, and whatever Polars raises.
        """
        return run_query(query, self._asked(query, beside or {}), params, limits)

    def _asked(self, query: Query, beside: Mapping[str, pl.LazyFrame]) -> dict[str, pl.LazyFrame]:
        return {name: beside[name] if name in beside else self[name] for name in query.tables}

    def asks_much(self) -> None:
        """Say it, where tables are read in parts, if all rules may ask for more than fits."""

    def whole(self) -> Tables:
        """Return the tables without filters."""
        if self.filters == Filters():
            return self
        if self._whole is None:
            self._whole = self.narrowed(Filters())
        return self._whole

    def narrowed(self, filters: Filters) -> Tables:
        """Return the tables of the same capture with other filters."""
        return Tables(self.capture, filters, roots_stand_in=self.roots_stand_in)

    def has_rows(self, name: str) -> bool:
        """Whether a table has any row."""
        if name in model.BY_NAME and name not in self._frames:
            return not self[name].head(1).collect().is_empty()
        return not self.frame(name).is_empty()

    def _captured(self, name: str) -> pl.LazyFrame:
        if name in self._frames:
            return self._frames[name].lazy()
        frame = plausible.mended(name, self.capture.table(name))
        time = model.BY_NAME[name].time
        # Spans are cut by request, in `tree`, so that a trace is never torn.
        if time is None or name in ("spans", "span_events"):
            return frame
        since_ns, until_ns = self.filters.since_ns, self.filters.until_ns
        if since_ns is not None:
            frame = frame.filter(pl.col(time) >= since_ns)
        if until_ns is not None:
            frame = frame.filter(pl.col(time) < until_ns)
        return frame

    def _compute(self, name: str) -> pl.DataFrame:
        if name in model.BY_NAME:
            return self._captured(name).collect()
        return self._made(derived_tables()[name])

    def _made(self, derived: Derived) -> pl.DataFrame:
        if derived.name in self._computing:
            raise RuntimeError(
                f"derived tables need each other: {self._computing} -> {derived.name}"
            )
        self._computing.append(derived.name)
        try:
            result = derived.compute(self)
        finally:
            self._computing.pop()
        return result.collect() if isinstance(result, pl.LazyFrame) else result


def derived_tables() -> dict[str, Derived]:
    """Return the derived tables by name."""
    from perfkit.analysis import DERIVED

    return {derived.name: derived for derived in DERIVED}


def _backbone_columns(name: str) -> Set[str]:
    derived = derived_tables().get(name)
    return derived.backbone.columns.keys() if derived and derived.backbone else frozenset()
