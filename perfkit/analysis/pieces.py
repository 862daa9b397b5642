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
    frames = _read(piece.output, piece.number, piece.callees, piece.columns)
    return piece.work(frames, piece.item)


@dataclass(frozen=True)
class Spill(Generic[R]):
    """What is to be done with one shard, which makes something small and a large frame."""

    output: Path
    number: int
    callees: Mapping[str, str]
    columns: Chosen
    work: Callable[[Frames], tuple[R, pl.DataFrame]]
    name: str
    """Of the folder for the large frame."""


def spilled(spill: Spill[R]) -> R:
    """Do the work and write the large frame to its file."""
    result, large = spill.work(_read(spill.output, spill.number, spill.callees, spill.columns))
    shards.write(spill.output, spill.name, spill.number, large)
    return result


def _read(output: Path, number: int, callees: Mapping[str, str], columns: Chosen) -> Frames:
    return {
        name: scan(output, name, number, callees).select(chosen).collect()
        for name, chosen in columns.items()
    }


def scan(output: Path, name: str, number: int, callees: Mapping[str, str]) -> pl.LazyFrame:
    """Return a table of one shard as it was written, but for what only all shards tell."""
    rows = pl.scan_parquet(shards.file_of(output, name, number))
    if name == "tree" and callees:
        rows = rows.with_columns(component=tree.component(callees))
    return rows
