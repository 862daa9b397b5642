"""Work on the tables of one shard, wherever the executor does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import polars as pl

from perfkit.analysis import shards
from perfkit.analysis.session import Chosen, Frames, R, T
from perfkit.analysis.spans import tree


@dataclass(frozen=True)
class Piece(Generic[T, R]):
    """What is to be done with one shard."""

    output: Path
    number: int
    callees: Mapping[str, str]
    """Service behind each peer, as the whole capture knows it."""
    columns: Chosen
    work: Callable[[Frames, T], R]
    item: T


def done(piece: Piece[T, R]) -> R:
    """Read the columns, with rows numbered within the shard, and do the work."""
    frames = {
        name: scan(piece.output, name, piece.number, piece.callees).select(chosen).collect()
        for name, chosen in piece.columns.items()
    }
    return piece.work(frames, piece.item)


def scan(output: Path, name: str, number: int, callees: Mapping[str, str]) -> pl.LazyFrame:
    """Return a table of one shard as it was written, but for what only all shards tell."""
    rows = pl.scan_parquet(shards.file_of(output, name, number))
    if name == "tree" and callees:
        rows = rows.with_columns(component=tree.component(callees))
    return rows
