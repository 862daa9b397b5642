"""The tables of a capture that is too large to be analysed in one piece.

Tables of which every row belongs to one trace are computed shard by shard (see `shards`) and stay
in files, from which only the columns that something asks for are read. All other tables are
computed from those columns of the whole capture, by the same functions as ever, so they are exact:
no figure differs from that of the capture in one piece. What differs is the order of `tree`, whose
entries come shard by shard.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from perfkit.analysis import in_order, pieces, shards
from perfkit.analysis.filters import Filters
from perfkit.analysis.in_order import Plan
from perfkit.analysis.pieces import Piece, Spill
from perfkit.analysis.session import Chosen, Frames, R, T, Tables, derived_tables
from perfkit.analysis.shards import CORE, NODE_SUMS, PER_TRACE, Done, Shard
from perfkit.analysis.spans import span_tree, tree
from perfkit.analysis.spans.duplicates import may_report_twice
from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.parting import parted
from perfkit.capture import Capture
from perfkit.engine import Executor, executor, free_bytes
from perfkit.errors import UsageError
from perfkit.layout import Wanted
from perfkit.scratch import Scratch
from perfkit.sql.checked import Query
from perfkit.sql.execute import Limits, run_query
from perfkit.sql.in_parts import run_in_parts
from perfkit.sql.write import Value

SHARD_SPANS = 1_000_000
"""A shard of so many spans takes about 1 GiB."""
WHOLE_SPANS = 4_000_000
"""Up to so many spans are analysed in one piece unless something else is asked for: 5 GiB."""
_MOST_SHARDS = 256
MOST_AT_ONCE = 8_000_000
"""Of so many spans columns are in memory at once; of a component of more, lengths alone."""
PART_SPANS = 4_000_000
"""Of so many spans a query is asked at once."""
_TEXT_BYTES = 16
_RULES_BASE_BYTES, _RULES_BYTES = 1 << 30, 70
"""What rules need, and for each span (measured: 1.8 GiB at 10 M, 2.1 at 20 M, 3.6 at 40 M)."""
_LOOK_AT_A_PART = (
    "If that is too little, look at a part of the capture: --since, --until or --endpoint"
)
_KEPT_BYTES = 1 << 30
"""Columns that were read stay in memory up to this much."""


@dataclass
class Division:
    """A capture divided into shards, once for all populations that are looked at."""

    capture: Capture
    executor: Executor
    count: int
    plan: Plan | None = None
    """How parts make shards where they are."""
    progress: Callable[[int, int], None] = lambda done, count: None
    """Told how many shards of how many are done with what is asked for."""
    warn: Callable[[str], None] = lambda text: None
    """Told what may not fit into memory."""
    folder: Scratch = field(init=False)
    _input: shards.Input | None = None
    _outputs: int = 0

    def __post_init__(self) -> None:
        # Whoever sees the capture sees what is beside it; beside one in object storage is nothing.
        beside = self.capture.path.parent if self.executor.elsewhere else None
        if beside is not None and not beside.is_dir():
            beside = None
        self.folder = Scratch(beside)

    def input(self) -> shards.Input:
        """Return the files of the shards; writes them first."""
        if self._input is None:
            self._input = shards.divide(
                self.capture, self.count, self.folder.path / "input", self.plan
            )
        return self._input

    def new_output(self) -> Path:
        """Return a new folder for what is derived."""
        self._outputs += 1
        return self.folder.path / f"derived-{self._outputs}"


class ShardedTables(Tables):
    """All tables of a capture by name, computed shard by shard."""

    def __init__(self, division: Division, filters: Filters | None = None) -> None:
        super().__init__(division.capture, filters)
        self._division = division
        self._output = division.new_output()
        self._rows: dict[str, list[int]] = {}
        self._callees: dict[str, str] = {}
        self._node_ids: list[Ints] = []
        self._warned: set[str] = set()
        self.most_at_once = MOST_AT_ONCE
        self._columns: OrderedDict[tuple[str, str], pl.Series] = OrderedDict()

    @property
    def described(self) -> str:
        """How the capture is analysed, in words."""
        return f"{self._division.count} shards by trace, {self._division.executor.name}"

    def tell(self, progress: Callable[[int, int], None], warn: Callable[[str], None]) -> None:
        """Say from now on how many shards of how many are done with what is asked for, and what may
        not fit into memory.
        """
        self._division.progress, self._division.warn = progress, warn

    def close(self) -> None:
        """End the workers and remove the files; the tables cannot be used after this."""
        self._division.executor.close()
        self._division.folder.close()

    def __getitem__(self, name: str) -> pl.LazyFrame:
        return self._scan(name) if name in PER_TRACE else super().__getitem__(name)

    def frame(self, name: str) -> pl.DataFrame:
        """Return a table as a frame; large ones are read anew, all columns of them."""
        if name in PER_TRACE:
            return self.columns(name, *derived_tables()[name].columns)
        return super().frame(name)

    def columns(self, name: str, *columns: str) -> pl.DataFrame:
        """Return some columns of a table as a frame."""
        if name not in PER_TRACE:
            return super().columns(name, *columns)
        lacking = [column for column in columns if (name, column) not in self._columns]
        if lacking:
            wanted = self._scan(name).select(lacking)
            self._warn_of(name, wanted.collect_schema())
            for values in wanted.collect():
                self._columns[name, values.name] = values.rechunk()
        found = pl.DataFrame([self._columns[name, column] for column in columns])
        for column in columns:
            self._columns.move_to_end((name, column))
        size = sum(column.estimated_size() for column in self._columns.values())
        while size > _KEPT_BYTES:
            _, dropped = self._columns.popitem(last=False)
            size -= dropped.estimated_size()
        return found

    def picked(self, name: str, rows: Ints, *columns: str) -> pl.DataFrame:
        """Return columns of some rows of a table that has the rows of `tree`, in their order."""
        mine = parted(rows, self.cuts())
        found = [
            scan.select(columns).collect()[rows[places] - first]
            for scan, places, first in zip(self._shards(name), mine, self.cuts(), strict=False)
        ]
        back = np.empty(len(rows), dtype=np.int64)
        back[np.concatenate(mine)] = np.arange(len(rows))
        picked: pl.DataFrame = pl.concat(found)[back]
        return picked

    def pieces(self, columns: Chosen) -> Iterator[pl.DataFrame]:
        """Yield columns of tables that have the same rows, side by side, shard by shard."""
        parts = [
            [scan.select(chosen) for scan in self._scans(name)] for name, chosen in columns.items()
        ]
        for several in zip(*parts, strict=True):
            yield pl.concat(pl.collect_all(several), how="horizontal")

    def shards_of(self, *names: str) -> Iterator[Mapping[str, pl.LazyFrame]]:
        """Yield tables whose rows belong to traces, shard by shard."""
        for shard in zip(*map(self._shards, names), strict=True):
            yield dict(zip(names, shard, strict=True))

    def cuts(self) -> Ints:
        """Return at which rows of `tree` the shards begin, and where it ends."""
        self._analyse("tree")
        return np.cumsum([0, *self._rows["tree"]])

    def each_piece(
        self, columns: Chosen, work: Callable[[Frames, T], R], items: Sequence[T]
    ) -> list[R]:
        """Return what `work` makes of each shard, where shards are analysed."""
        for name in columns:
            self._analyse(name)
        todo = [
            Piece(self._output, number, self._callees, columns, work, item)
            for number, item in enumerate(items)
        ]
        return self._division.executor.map(pieces.done, todo)

    def each_spilled(
        self, name: str, columns: Chosen, work: Callable[[Frames], tuple[R, pl.DataFrame]]
    ) -> list[tuple[R, pl.LazyFrame]]:
        """Return what `work` makes of each shard, and the large frame that it left in a file."""
        for table in columns:
            self._analyse(table)
        numbers = range(self._division.count)
        todo = [
            Spill(self._output, number, self._callees, columns, work, name) for number in numbers
        ]
        results = self._division.executor.map(pieces.spilled, todo)
        files = [shards.file_of(self._output, name, number) for number in numbers]
        return list(zip(results, map(pl.scan_parquet, files), strict=True))

    def answer(
        self,
        query: Query,
        params: Mapping[str, Value],
        limits: Limits,
        beside: Mapping[str, pl.LazyFrame] | None = None,
    ) -> pl.DataFrame:
        """Return the result of a query, asked of some shards at a time where that is the same."""
        frames = self._asked(query, beside or {})
        divided = [name for name in frames if name in PER_TRACE and name not in (beside or ())]
        if not divided:
            return run_query(query, frames, params, limits)
        folder = self._division.new_output()
        return run_in_parts(query, frames, self._in_parts(divided), params, limits, folder)

    def _in_parts(self, names: Sequence[str]) -> list[dict[str, pl.LazyFrame]]:
        """Return tables by few parts of several shards: less is to be planned than for each."""
        shards = {name: self._shards(name) for name in names}
        group = (self.cuts()[1:] - 1) // PART_SPANS
        firsts = np.flatnonzero(np.diff(group, prepend=-2))
        ends = [*firsts[1:].tolist(), len(group)]
        return [
            {
                name: pl.concat(self._full(name, parts[first:end], first))
                for name, parts in shards.items()
            }
            for first, end in zip(firsts.tolist(), ends, strict=True)
        ]

    def has_rows(self, name: str) -> bool:
        """Whether a table has any row."""
        if name in PER_TRACE:
            self._analyse(name)
            return sum(self._rows[name]) > 0
        return super().has_rows(name)

    def narrowed(self, filters: Filters) -> Tables:
        """Return the tables of the same capture with other filters."""
        return ShardedTables(self._division, filters)

    def _compute(self, name: str) -> pl.DataFrame:
        if name == span_tree.SPAN_TREE.name:
            return self._merged_nodes().nodes
        return super()._compute(name)

    def asks_much(self) -> None:
        """Say it if all rules may ask for more than fits into memory."""
        spans, free = int(self.cuts()[-1]), free_bytes()
        needed = _RULES_BASE_BYTES + spans * _RULES_BYTES
        if free is not None and needed > free:
            self._division.warn(
                f"what rules ask of {spans:,} spans takes about {needed / (1 << 30):.1f} GiB, with "
                f"{free / (1 << 30):.1f} GiB free. {_LOOK_AT_A_PART}"
            )

    def _warn_of(self, name: str, schema: pl.Schema) -> None:
        """Say it before columns of all rows are read that take most of the memory that is left."""
        rows, free = sum(self._rows[name]), free_bytes()
        needed = rows * sum(_TEXT_BYTES if type == pl.String else 8 for type in schema.values())
        if free is not None and needed > free // 2 and name not in self._warned:
            self._warned.add(name)
            self._division.warn(
                f"{len(schema)} columns of the {rows:,} rows of `{name}` are needed at once: "
                f"{needed / (1 << 30):.1f} GiB, and as much again to work on them, with "
                f"{free / (1 << 30):.1f} GiB free. {_LOOK_AT_A_PART}"
            )

    def _scan(self, name: str) -> pl.LazyFrame:
        """Return a table of all shards, with rows numbered through."""
        return pl.concat(self._scans(name))

    def _scans(self, name: str) -> list[pl.LazyFrame]:
        """Return the parts that a table consists of: shards without rows only if none has any."""
        return self._full(name, self._shards(name))

    def _full(self, name: str, parts: list[pl.LazyFrame], first: int = 0) -> list[pl.LazyFrame]:
        rows = self._rows[name][first : first + len(parts)]
        return [part for part, count in zip(parts, rows, strict=True) if count] or parts[:1]

    def _shards(self, name: str) -> list[pl.LazyFrame]:
        """Return the shards of a table, with rows numbered through."""
        cuts = self.cuts()
        self._analyse(name)
        parts = []
        for number, first in enumerate(cuts[:-1]):
            part = pieces.scan(self._output, name, number, self._callees)
            parts.append(part.with_columns(_moved(part, int(first))))
        if name == "span_tree_rows":
            self._node_ids = self._node_ids or self._merged_nodes().node_ids
            parts = [
                part.with_columns(_looked_up("node_id", ids))
                for part, ids in zip(parts, self._node_ids, strict=True)
            ]
        return parts

    def _merged_nodes(self) -> span_tree.Merged:
        self._analyse("tree")
        numbers = range(self._division.count)
        return span_tree.merged(
            [pl.read_parquet(shards.file_of(self._output, NODE_SUMS, n)) for n in numbers]
        )

    def _analyse(self, name: str) -> None:
        if "tree" not in self._rows:
            done = self._map(shards.analyse_core)
            if not any(one.has_requests for one in done):
                # Only now it is known that there is nothing better than lone roots.
                self._output = self._division.new_output()
                done = self._map(shards.analyse_core, roots_stand_in=True)
            self._take(done)
            pairs = [one.callees for one in done if one.callees is not None]
            self._callees = tree.only_callees(pl.concat(pairs))
        if name not in CORE and name not in self._rows:
            self._take(self._map(shards.analyse_further))

    def _take(self, done: list[Done]) -> None:
        for name in done[0].rows:
            self._rows[name] = [one.rows[name] for one in done]

    def _map(self, work: Callable[[Shard], Done], *, roots_stand_in: bool = False) -> list[Done]:
        files = self._division.input()
        every = [
            Shard(
                number,
                {
                    "spans": files.spans[number],
                    "span_links": files.links[number],
                    "metrics": (files.metrics,),
                },
                self.capture.path,
                self.capture.info,
                self.filters,
                roots_stand_in,
                self._output,
            )
            for number in range(self._division.count)
        ]
        count = self._division.count
        return self._division.executor.map(
            work, every, lambda done: self._division.progress(done, count)
        )


def open_tables(capture: Capture, filters: Filters, engine: str = "auto") -> Tables:
    """Return the tables of a capture: in one piece, or by an engine that `executor` knows.

    `auto` takes shards for what is large, and `whole` never does. Raises UsageError for an unknown
    engine, and when the capture cannot be divided and something other than `auto` is asked for.
    """
    wanted = Wanted(filters.since_ns, filters.until_ns, filters.endpoint)
    if wanted != Wanted() and not capture.has("samples"):
        # With samples all spans are needed: any of them may have kept a thread busy.
        capture = capture.restricted(wanted)
    if engine == "whole":
        return Tables(capture, filters)
    spans = int(capture.table("spans").select(pl.len()).collect().item())
    if engine == "auto" and spans <= WHOLE_SPANS:
        return Tables(capture, filters)
    workers = executor("shards" if engine == "auto" else engine)
    if _reports_twice(capture):
        if engine == "auto":
            return Tables(capture, filters)
        raise UsageError(
            "two instrumentations report the requests of one service: what is a second report of "
            "a request can only be told in one piece",
            hint="use --engine whole",
        )
    count = shards.buckets_of(capture)
    plan = None if count else in_order.plan(capture, SHARD_SPANS)
    if plan is not None:
        count = plan.count
    count = count or min(_MOST_SHARDS, max(2, -(-spans // SHARD_SPANS)))
    return ShardedTables(Division(capture, workers, count, plan), filters)


def _reports_twice(capture: Capture) -> bool:
    """Whether server spans of one service come from several scopes, and some of one may report what
    one of another does: a request may then be two traces (see `duplicates`), which shards would
    part.
    """
    served = capture.table("spans").filter(
        pl.col("kind") == "server", pl.col("endpoint").is_not_null()
    )
    known = served.select("service", "scope", "endpoint").unique().collect(engine="streaming")
    return may_report_twice(known)


def _looked_up(column: str, values: Ints) -> pl.Expr:
    """Return the values at the places that a column names."""

    def look_up(places: pl.Series) -> pl.Series:
        return pl.Series(values[places.to_numpy()], dtype=pl.Int64)

    return pl.col(column).map_batches(look_up, return_dtype=pl.Int64, is_elementwise=True)


def _moved(rows: pl.LazyFrame, by: int) -> list[pl.Expr]:
    """Number the rows of a shard after those of all before it, wherever a column names them."""
    names = rows.collect_schema().names()
    moved = [pl.col(name) + by for name in names if name == "row" or name.endswith("_row")]
    if "rows" in names:
        moved.append(pl.col("rows").list.eval(pl.element() + by))
    return moved
