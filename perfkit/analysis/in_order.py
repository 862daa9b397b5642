"""Parts that were recorded one after the other: nearly shards already.

Some parts after one another are a shard where they are, but for the spans of traces that reach into
another shard. Those make a shard of their own. So hardly anything has to be written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from perfkit.analysis.vector.forest import Bools
from perfkit.capture import Capture
from perfkit.layout import trace_key

Keys = NDArray[np.uint64]

_MOST_TORN = 0.05
"""Share of traces that may reach into another shard (house); with more a hash divides better."""
_MOST_LINKS = 1_000_000
"""Every shard gets all links, if they are so few."""
_MOST_TRACES = 100_000_000


@dataclass(frozen=True)
class Slice:
    """Some rows of a file."""

    path: Path
    first: int
    rows: int


@dataclass(frozen=True)
class Plan:
    """Which parts make a shard, and the traces that are in several."""

    groups: list[list[Path]]
    torn: Keys

    @property
    def count(self) -> int:
        """How many shards there are."""
        return len(self.groups) + bool(len(self.torn))


def plan(capture: Capture, spans_of_a_shard: int) -> Plan | None:
    """Return how the parts of a capture make shards; None if they do not."""
    if not capture.finished or not capture.is_plain:
        return None
    parts = [part for part in capture.parts("spans") if isinstance(part, Path)]
    if len(parts) < 2 or len(parts) < len(capture.parts("spans")):
        return None
    if _height(capture.table("span_links")) > _MOST_LINKS:
        return None
    groups: list[list[Path]] = [[]]
    held = 0
    for part in parts:
        rows = _height(pl.scan_parquet(part))
        if rows > 2 * spans_of_a_shard:
            return None
        if groups[-1] and held + rows > spans_of_a_shard * 1.25:
            groups.append([])
            held = 0
        groups[-1].append(part)
        held += rows
    torn = _torn(groups) if len(groups) > 1 else None
    return None if torn is None else Plan(groups, torn)


def _torn(groups: Sequence[Sequence[Path]]) -> Keys | None:
    """Return the traces that are in several groups; None when they are too many."""
    keys: list[Keys] = []
    torn = np.zeros(0, dtype=np.uint64)
    for group in groups:
        found = pl.concat(map(_keys, group)).unique().collect().to_series()
        keys.append(found.to_numpy())
        if sum(map(len, keys)) > _MOST_TRACES:
            return None
        if len(keys) in (2, len(groups)):
            every = np.sort(np.concatenate(keys))
            torn = np.unique(every[1:][every[1:] == every[:-1]])
            if len(torn) > _MOST_TORN * len(every):
                return None
    return torn


def files_of(plan: Plan, columns: Sequence[str], folder: Path) -> list[tuple[Path | Slice, ...]]:
    """Return the files of each shard; writes what cannot be read where it is."""
    result: list[tuple[Path | Slice, ...]] = []
    rest: list[Path | Slice] = []
    folder.mkdir(parents=True, exist_ok=True)
    for group in plan.groups:
        mine: list[Path | Slice] = []
        for part in group:
            apart = np.isin(_keys(part).collect().to_series().to_numpy(), plan.torn)
            if not apart.any():
                mine.append(part)
                continue
            first, last = _longest_stretch(~apart)
            if last - first < len(apart) // 2:
                last = first
            else:
                mine.append(Slice(part, first, last - first))
            scan = pl.scan_parquet(part)
            scan = scan.select(name for name in scan.collect_schema() if name in columns)
            edges = pl.concat([scan.slice(0, first), scan.slice(last)]).collect()
            there = pl.Series(np.append(apart[:first], apart[last:]))
            for what, chosen, files in (("own", ~there, mine), ("torn", there, rest)):
                if chosen.any():
                    file = folder / f"{part.stem}-{what}.parquet"
                    edges.filter(chosen).write_parquet(file, compression="lz4")
                    files.append(file)
        result.append(tuple(mine))
    return [*result, tuple(rest)] if rest else result


def _keys(part: Path) -> pl.LazyFrame:
    return pl.scan_parquet(part).select(trace_key())


def _longest_stretch(flags: Bools) -> tuple[int, int]:
    """Return where the longest stretch of set flags begins, and where it has ended."""
    change = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]])))
    if not len(change):
        return 0, 0
    first, end = change[::2], change[1::2]
    longest = int(np.argmax(end - first))
    return int(first[longest]), int(end[longest])


def _height(rows: pl.LazyFrame) -> int:
    return int(rows.select(pl.len()).collect().item())
