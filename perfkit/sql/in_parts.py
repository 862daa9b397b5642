"""Queries over tables that are in parts: asked of some traces at a time where that is the same.

What a stage says of parts stays in files, so that memory does not grow with the parts, and the
limits of a stage are those of a part. See `apart` for which stages are asked so.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl

from perfkit.sql.apart import PARTS, Apart, Key, apart
from perfkit.sql.checked import Part, Query, Stage
from perfkit.sql.execute import Answers, Limits, TooMuch, collect
from perfkit.sql.write import Value

_MOST_BESIDE = 1_000_000
"""A table with more rows that is not in parts is not read anew for each of them."""

Frames = Mapping[str, pl.LazyFrame]


def run_in_parts(
    query: Query,
    frames: Frames,
    parts: Sequence[Frames],
    params: Mapping[str, Value],
    limits: Limits,
    folder: Path,
) -> pl.DataFrame:
    """Return the result of a query over `frames`, as `run_query` does.

    Those of them that `parts` have too are in parts. What is kept meanwhile is in a new folder.
    """
    folder.mkdir(parents=True)
    try:
        return _Run(query, frames, parts, Answers(params, limits), folder).result()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Run:
    """A query while it runs."""

    def __init__(
        self, query: Query, frames: Frames, parts: Sequence[Frames], answers: Answers, folder: Path
    ) -> None:
        self._query, self._answers, self._folder = query, answers, folder
        self._whole = dict(frames)
        self._parts = [dict(part) for part in parts]
        self._columns = {name: frozenset(frame.collect_schema()) for name, frame in frames.items()}
        self._links = {name: _links(self._columns[name]) for name in parts[0]}
        self._heights: dict[str, int] = {}

    def result(self) -> pl.DataFrame:
        """Run all stages."""
        for stage in self._query.stages[:-1]:
            how = self._how(stage)
            if how is None:
                self._whole[stage.name] = self._answers.of(stage, self._whole).lazy()
            else:
                self._keep(stage, how)
            self._columns[stage.name] = frozenset(stage.columns)
        last = self._query.stages[-1]
        how = self._how(last)
        if how is None:
            return self._answers.of(last, self._whole)
        if how.together is not None:
            return self._summed(last, how)
        found = pl.concat([*self._each(last, how), *self._rest(last, how)], how="vertical_relaxed")
        if found.height > self._answers.limits.result_rows:
            raise TooMuch(f"more than {self._answers.limits.result_rows:,} rows")
        return found

    def _how(self, stage: Stage) -> Apart | None:
        beside = [name for name in stage.sources.values() if name not in self._links]
        if any(self._height(name) > _MOST_BESIDE for name in beside):
            return None
        return apart(stage, self._columns, self._links)

    def _height(self, name: str) -> int:
        if name not in self._heights:
            counted = collect(self._whole[name].select(pl.len()), self._answers.limits)
            self._heights[name] = int(counted.item())
        return self._heights[name]

    def _keep(self, stage: Stage, how: Apart) -> None:
        """Run a stage part by part; its answers stay in files."""
        if how.together is not None:
            self._whole[stage.name] = self._summed(stage, how).lazy()
            return
        files = self._kept(stage, how)
        rest = [one.lazy() for one in self._rest(stage, how)]
        self._whole[stage.name] = pl.concat([*files, *rest], how="vertical_relaxed")
        if not rest:
            self._links[stage.name] = how.links
            for part, file in zip(self._parts, files, strict=True):
                part[stage.name] = file

    def _summed(self, stage: Stage, how: Apart) -> pl.DataFrame:
        assert how.together is not None
        found = pl.concat(self._kept(stage, how), how="vertical_relaxed")
        return self._answers.select(Part(how.together), {**self._beside(stage), PARTS: found})

    def _kept(self, stage: Stage, how: Apart) -> list[pl.LazyFrame]:
        """Return what a stage says of each part, in a file each."""
        folder = self._folder / (stage.name or "last")
        folder.mkdir()
        files = []
        for number, frame in enumerate(self._each(stage, how)):
            files.append(folder / f"{number:05d}.parquet")
            frame.write_parquet(files[-1], compression="uncompressed", statistics=False)
        return [pl.scan_parquet(file) for file in files]

    def _each(self, stage: Stage, how: Apart) -> Iterator[pl.DataFrame]:
        beside = self._beside(stage)
        for part in self._parts:
            mine = {name: part[name] for name in stage.reads if name in self._links}
            yield self._answers.of(stage, {**beside, **mine}, how.each)

    def _rest(self, stage: Stage, how: Apart) -> list[pl.DataFrame]:
        """Return what a stage says of rows that are of no part, if anything."""
        if how.key is None or not self._lacks(how.key):
            return []
        found = self._answers.of(stage, self._whole, how.key.rest)
        return [] if found.is_empty() else [found]

    def _lacks(self, key: Key) -> bool:
        lacking = pl.col(key.column).is_null().any()
        return any(
            collect(part[key.table].select(lacking), self._answers.limits).item()
            for part in self._parts
        )

    def _beside(self, stage: Stage) -> dict[str, pl.LazyFrame]:
        return {name: self._whole[name] for name in stage.reads if name not in self._links}


def _links(columns: frozenset[str]) -> frozenset[str]:
    return frozenset(name for name in columns if name == "row" or name.endswith("_row"))
