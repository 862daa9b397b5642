"""Parts of a capture that can be analysed alone: all spans of some traces, by a hash of the trace.

What is derived of one trace needs nothing of any other. So those tables are computed shard by
shard and left in files: one Parquet file a table and shard. Rows are numbered within the shard.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from perfkit import model
from perfkit.analysis import in_order
from perfkit.analysis.filters import Filters
from perfkit.analysis.in_order import Plan, Slice
from perfkit.analysis.session import Tables
from perfkit.analysis.spans import span_tree, tree
from perfkit.capture import Capture
from perfkit.layout import Index, bucket, read_index
from perfkit.manifest import CaptureInfo

CORE = ("tree", "span_waits", "critical_path", "span_times", "requests", "span_tree_rows")
FURTHER = (
    *("span_drag", "query_calls", "query_repeats", "http_calls", "serial_calls"),
    "tool_invocations",
)
PER_TRACE = CORE + FURTHER
"""Tables in which whatever is said about a span comes from its own trace."""

NODE_SUMS = "span_tree_sums"

_READ = [
    name
    for name in model.SPANS.schema
    if name not in ("parent_inferred", "status_message", "resource")
]
_SPLIT = ("spans", "span_links")

Files = tuple[Path | str | Slice, ...]


@dataclass(frozen=True)
class Input:
    """The files that hold a capture divided into shards."""

    spans: tuple[Files, ...]
    """The files of each shard."""
    links: tuple[Files, ...]
    metrics: Path


@dataclass(frozen=True)
class Shard:
    """What a worker needs to know to analyse one shard."""

    number: int
    files: Mapping[str, Files]
    path: Path
    info: CaptureInfo
    filters: Filters
    roots_stand_in: bool
    output: Path


@dataclass(frozen=True)
class Done:
    """What a worker found in a shard, beside the tables that it wrote."""

    rows: dict[str, int]
    """Rows of each table."""
    has_requests: bool = False
    """Whether the shard has any request, filtered out or not."""
    callees: pl.DataFrame | None = None
    """Who is called by which name, see `tree.callees`."""


def divide(capture: Capture, count: int, folder: Path, plan: Plan | None = None) -> Input:
    """Write the spans and links of a capture to files by shard, in one pass, and its metrics.

    What a compaction has divided into as many buckets is read where it is, and so are parts of
    which a plan says that they are shards.
    """
    metrics = folder / "metrics.parquet"
    capture.table("metrics").sink_parquet(metrics, mkdir=True)
    if plan is not None:
        links = folder / "span_links.parquet"
        capture.table("span_links").sink_parquet(links, mkdir=True)
        spans = tuple(in_order.files_of(plan, _READ, folder / "spans"))
        return Input(spans, ((links,),) * len(spans), metrics)
    found: dict[str, tuple[Files, ...]] = {}
    for table in _SPLIT:
        if table == "spans" and buckets_of(capture) == count:
            found[table] = _by_bucket(capture, count)
            continue
        rows = capture.table(table)
        if table == "spans":
            rows = rows.select(_READ)
        rows.with_columns(bucket=bucket(count)).sink_parquet(
            pl.PartitionBy(folder / table, key="bucket", include_key=False),
            compression="lz4",
            mkdir=True,
        )
        found[table] = tuple(
            tuple(sorted((folder / table / f"bucket={number}").glob("*.parquet")))
            for number in range(count)
        )
    return Input(found["spans"], found["span_links"], metrics)


def buckets_of(capture: Capture) -> int | None:
    """Return into how many buckets a capture is divided by a compaction; None if it is not."""
    if not capture.is_plain:
        return None
    parts = capture.parts("spans")
    found = {index.buckets if index else 0 for index in map(_index, parts)}
    return found.pop() if len(found) == 1 and 0 not in found else None


def _by_bucket(capture: Capture, count: int) -> tuple[Files, ...]:
    files: list[list[Path | str | Slice]] = [[] for _ in range(count)]
    for part in capture.parts("spans"):
        index = _index(part)
        assert index is not None
        files[index.bucket].append(part)
    return tuple(map(tuple, files))


def _index(part: Path | str) -> Index | None:
    return read_index(pl.read_parquet_metadata(part))


class ShardCapture(Capture):
    """The rows of a capture that a worker sees."""

    def __init__(self, shard: Shard) -> None:
        super().__init__(shard.path, shard.info)
        self._files = shard.files

    def table(self, name: str) -> pl.LazyFrame:
        """Return the shard's rows of a table."""
        table = model.BY_NAME[name]
        files = self._files.get(name, ())
        if not files:
            return table.empty().lazy()
        return pl.concat(_scan(file, table) for file in files)


def _scan(file: Path | str | Slice, table: model.Table) -> pl.LazyFrame:
    """Return the rows of a file; a column that it does not have is null."""
    if isinstance(file, Slice):
        rows = pl.scan_parquet(file.path).slice(file.first, file.rows)
    else:
        rows = pl.scan_parquet(file)
    present = rows.collect_schema()
    return rows.select(
        name if name in present else pl.lit(None, dtype).alias(name)
        for name, dtype in table.schema.items()
    )


class ShardTables(Tables):
    """The tables of one shard. Those that were computed before are read from their files."""

    def __init__(self, shard: Shard) -> None:
        super().__init__(ShardCapture(shard), shard.filters, roots_stand_in=shard.roots_stand_in)
        self._shard = shard

    def columns(self, name: str, *columns: str) -> pl.DataFrame:
        """Return some columns of a table as a frame."""
        file = self._file(name)
        if name not in self._frames and file.exists():
            return pl.read_parquet(file, columns=list(columns))
        return super().columns(name, *columns)

    def _compute(self, name: str) -> pl.DataFrame:
        file = self._file(name)
        return pl.read_parquet(file) if file.exists() else super()._compute(name)

    def _file(self, name: str) -> Path:
        return file_of(self._shard.output, name, self._shard.number)


def file_of(output: Path, table: str, number: int) -> Path:
    """Return where a table of a shard is kept."""
    return output / table / f"{number:05d}.parquet"


def analyse_core(shard: Shard) -> Done:
    """Write the tables of CORE."""
    tables = ShardTables(shard)
    whole = tables.whole().frame("tree")
    has_requests = whole["request_row"].null_count() < whole.height
    callees = tree.callees(whole)
    rows = {name: _write(shard, name, tables.frame(name)) for name in CORE}
    write(shard.output, NODE_SUMS, shard.number, span_tree.sums_of_nodes(tables))
    return Done(rows, has_requests, callees)


def analyse_further(shard: Shard) -> Done:
    """Write the tables of FURTHER, from those of CORE."""
    tables = ShardTables(shard)
    return Done({name: _write(shard, name, tables.frame(name)) for name in FURTHER})


def _write(shard: Shard, name: str, frame: pl.DataFrame) -> int:
    write(shard.output, name, shard.number, frame)
    return frame.height


def write(output: Path, name: str, number: int, frame: pl.DataFrame) -> None:
    """Write a table of a shard, whole or not at all."""
    file = file_of(output, name, number)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Another worker may do the same shard again.
    temporary = file.with_suffix(f".{id(frame)}.tmp")
    frame.write_parquet(temporary, compression="uncompressed", statistics=False)
    temporary.replace(file)
