"""Run checked SQL: stage by stage, each with a bound on its rows and on its time.

What is bounded: the rows that a join can make are computed from the keys before it runs, every
stage ends after a time limit, and results are cut. What is not: Polars cannot be interrupted inside
one operation, so after the limit the work goes on in the background until that operation ends.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl
from polars.lazyframe.in_process import InProcessQuery
from sqlglot import exp

from perfkit.sql.checked import Expression, JoinKey, Part, Query, Stage
from perfkit.sql.width import narrow
from perfkit.sql.write import Value

_MULTIPLICITY = "rows_of_key"
_STARVED = 20
"""How many times the limit a query gets at most that comes to compute little: our own number."""

ONE_PER_SPAN = frozenset(("tree", "span_times", "span_waits", "http_calls", "query_calls"))
"""Tables in which no two rows have the same `row`."""

# Polars aborts the whole process when a background query ends and nobody holds its handle any more.
_ABANDONED: list[InProcessQuery] = []


class TooMuch(Exception):
    """A query would make too many rows, or took too long."""


@dataclass(frozen=True)
class Limits:
    """What one stage of a query may take. The numbers are ours, far above what is needed."""

    joined_rows: int = 50_000_000
    result_rows: int = 10_000_000
    seconds: float = 30.0
    """Of the clock, if the process has computed for as long meanwhile: what waits for a processor
    beside other programs is no endless query."""


def run_query(
    query: Query,
    tables: Mapping[str, pl.LazyFrame],
    params: Mapping[str, Value],
    limits: Limits,
) -> pl.DataFrame:
    """Return the result of a query. Raises TooMuch, and whatever Polars raises."""
    frames = {name: tables[name] for name in query.tables}
    answers = Answers(params, limits)
    result = pl.DataFrame()
    for stage in query.stages:
        result = answers.of(stage, frames)
        if stage.name:
            frames[stage.name] = result.lazy()
    return result


@dataclass(frozen=True)
class Answers:
    """Runs the SELECTs of a query."""

    params: Mapping[str, Value]
    limits: Limits

    def of(
        self,
        stage: Stage,
        frames: Mapping[str, pl.LazyFrame],
        select: exp.Select | None = None,
    ) -> pl.DataFrame:
        """Return the result of a stage, or of another SELECT with its joins."""
        _check_joins(stage, frames, self.limits)
        return self.select(stage.part if select is None else Part(select), frames)

    def select(self, part: Part, frames: Mapping[str, pl.LazyFrame]) -> pl.DataFrame:
        """Return the result of a SELECT."""
        limits = self.limits
        with pl.SQLContext(frames, eager=False) as context:
            plain, wide = part.both_sql(self.params)
            lazy = context.execute(wide, eager=False)
            types = context.execute(plain, eager=False) if wide != plain else None
        lazy = lazy.head(limits.result_rows + 1).with_columns(_known(pl.col(pl.Float64)))
        result = collect(lazy, limits)
        if result.height > limits.result_rows:
            raise TooMuch(f"more than {limits.result_rows:,} rows")
        if types is not None:
            result = narrow(result, types.collect_schema())
        return result


def add_column(
    frame: pl.DataFrame, name: str, expression: Expression, params: Mapping[str, Value]
) -> pl.DataFrame:
    """Return the frame with one more column, computed row by row."""
    plain, wide = expression.part.both_sql(params)
    added = frame.with_columns(pl.sql_expr(wide).alias(name))
    if added.schema[name] == pl.Float64:
        added = added.with_columns(_known(pl.col(name)))
    if wide == plain:
        return added
    types = frame.lazy().with_columns(pl.sql_expr(plain).alias(name)).collect_schema()
    return narrow(added, types)


def _known(column: pl.Expr) -> pl.Expr:
    """Return null for what is no number, such as the correlation with a constant.

    Polars takes NaN for larger than any number, so that it would pass every threshold.
    """
    return column.fill_nan(None)


def collect(lazy: pl.LazyFrame, limits: Limits) -> pl.DataFrame:
    """Return a lazy frame's rows. Raises TooMuch after the time limit."""
    running = lazy.collect(background=True)
    clock, computed = time.monotonic(), time.process_time()
    pause = 0.0002
    while (result := running.fetch()) is None:
        if _is_over(limits.seconds, time.monotonic() - clock, time.process_time() - computed):
            running.cancel()
            _ABANDONED.append(running)
            raise TooMuch(f"took longer than {limits.seconds:g} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)
    return result


def _is_over(limit_s: float, clock_s: float, computed_s: float) -> bool:
    """Whether a query has had its time: by the clock, and by what the process computed in it."""
    return clock_s > limit_s and (computed_s > limit_s or clock_s > _STARVED * limit_s)


def _check_joins(stage: Stage, frames: Mapping[str, pl.LazyFrame], limits: Limits) -> None:
    """Refuse joins that multiply rows without bound, before they run.

    Where all pairs would be few enough, nothing is counted, nor where each row meets one span at
    most: to count the keys of all spans takes more memory than the join. Else the first join is
    counted exactly: the sum over keys of rows left times rows right. Each further one multiplies by
    the most rows that share one key on its side.
    """
    rows = _height(frames[next(iter(stage.sources.values()))], limits) if stage.joins else 0
    for number, keys in enumerate(stage.joins):
        source = stage.sources[keys[0].joined]
        joined = frames[source]
        by_span = source in ONE_PER_SPAN and any(key.joined_column == "row" for key in keys)
        if by_span and rows <= limits.joined_rows:
            continue
        pairs = rows * max(1, _height(joined, limits))
        if pairs <= limits.joined_rows:
            rows = pairs
            continue
        right = _per_key(joined, [key.joined_column for key in keys])
        left_alias = {key.source for key in keys}
        if number == 0 and len(left_alias) == 1:
            left = frames[stage.sources[left_alias.pop()]]
            rows = _joined_rows(left, right, keys, limits)
        else:
            most = collect(right.select(pl.col(_MULTIPLICITY).max().fill_null(1)), limits).item()
            rows = max(rows, 1) * most
        if rows > limits.joined_rows:
            raise TooMuch(
                f"joining {keys[0].joined} would make about {rows:,} rows: the columns compared "
                f"do not tell rows apart"
            )


def _height(frame: pl.LazyFrame, limits: Limits) -> int:
    return int(collect(frame.select(pl.len()), limits).item())


def _per_key(frame: pl.LazyFrame, columns: list[str]) -> pl.LazyFrame:
    keys = [pl.col(column).alias(f"key_{index}") for index, column in enumerate(columns)]
    kept = frame.select(keys).drop_nulls()
    return kept.group_by(f"key_{index}" for index in range(len(columns))).agg(
        pl.len().cast(pl.Int64).alias(_MULTIPLICITY)
    )


def _joined_rows(
    left: pl.LazyFrame, right: pl.LazyFrame, keys: tuple[JoinKey, ...], limits: Limits
) -> int:
    names = [f"key_{index}" for index in range(len(keys))]
    both = _per_key(left, [key.column for key in keys]).join(right, on=names)
    product = pl.col(_MULTIPLICITY) * pl.col(_MULTIPLICITY + "_right")
    total = collect(both.select(product.cast(pl.Float64).sum()), limits).item()
    return int(total)


def reason(error: Exception) -> str:
    """Return on one line what Polars says was wrong, without the plan that it shows beside it."""
    text = re.split(
        r"\n+(?:Resolved plan until failure|This error occurred)", str(error), maxsplit=1
    )[0]
    return " ".join(text.split())[:300]
