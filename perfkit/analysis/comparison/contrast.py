"""Two populations of requests to compare, and the runs that each of them is made of.

Every request (entry) gets the number of its run; runs belong to one of two sides. A run is a
capture where both sides have several; otherwise each side is cut into blocks of time, which stand
in for runs. Blocks of one capture share its luck, so what they show is a weaker claim.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from perfkit.analysis.predicate import holding
from perfkit.analysis.session import Chosen, Tables
from perfkit.analysis.statistics.significance import MINIMUM_RUNS
from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.percentiles import codes, quantiles
from perfkit.capture import Capture
from perfkit.errors import UsageError
from perfkit.units import timestamp

BLOCKS = 10
"""Blocks of time that one side is cut into."""

SLOW_LEVEL = 0.95
TYPICAL_LEVEL = 0.75
FEWEST_REQUESTS = 20
"""Slow are requests from their endpoint's 95th percentile on, typical those up to its 75th; between
lies neither. An endpoint with fewer than 20 requests has no 95th percentile to speak of."""

Unit = Literal["run", "block of time"]
About = Literal["captures", "time", "endpoints", "predicates", "tail"]


_EVER = 1 << 62
_OF_ENTRY = ("request_row", "service", "endpoint", "start_ns", "duration_ns", "adjusted_count")


class Stretch(NamedTuple):
    """The time of one side, cut into blocks of equal width: runs from `first_run` on.

    What lies in [since_ns, until_ns) but before or after all blocks counts to the nearest.
    """

    start_ns: int
    width_ns: int
    blocks: int
    first_run: int
    since_ns: int = -_EVER
    until_ns: int = _EVER

    def run(self, ts_ns: pl.Series) -> pl.Series:
        """Return the run of each moment."""
        return ((ts_ns - self.start_ns) // self.width_ns).clip(0, self.blocks - 1) + self.first_run


@dataclass(frozen=True)
class Part:
    """One capture's share of the comparison."""

    tables: Tables
    run_of_row: Ints
    """For each row of `tree` the run of its entry; -1 for spans of no entry or of neither side."""
    times: tuple[Stretch, ...] = ()
    """What belongs to a side by its time alone; empty where sides are told apart otherwise."""

    def pieces(self, columns: Chosen) -> Iterator[tuple[slice, pl.DataFrame]]:
        """Yield columns of tables with the rows of `tree`, some whole traces at a time, and where
        in `run_of_row` these rows are.
        """
        first = 0
        for piece in self.tables.pieces(columns):
            yield slice(first, first + piece.height), piece
            first += piece.height

    def run_of_time(self, ts_ns: pl.Series) -> pl.Series:
        """Return the run that moments fall into; null for none, and for a null moment."""
        run = pl.Series("run", [None], dtype=pl.Int64).new_from_index(0, len(ts_ns))
        for stretch in self.times:
            inside = (ts_ns >= stretch.since_ns) & (ts_ns < stretch.until_ns)
            run = stretch.run(ts_ns).zip_with(inside.fill_null(False), run)
        return run


@dataclass(frozen=True)
class Contrast:
    """Two sides, each of some runs. `side_of_run` says which side (0 before, 1 after) a run is."""

    names: tuple[str, str]
    parts: tuple[Part, ...]
    side_of_run: Ints
    unit: Unit
    about: About
    notes: tuple[str, ...] = field(default=())

    @property
    def runs(self) -> int:
        """Number of runs on both sides together."""
        return len(self.side_of_run)

    def split(self, figures: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Return figures of all runs (last axis) as those of the one side and of the other."""
        return figures[..., self.side_of_run == 0], figures[..., self.side_of_run == 1]

    def entries(self) -> pl.DataFrame:
        """Return the entries of both sides: `run`, `side`, and some columns of `requests`."""
        frames = []
        for number, part in enumerate(self.parts):
            requests = _entries(part.tables)
            run = pl.Series("run", part.run_of_row[requests["request_row"].to_numpy()])
            frames.append(requests.with_columns(run, part=pl.lit(number)).filter(run >= 0))
        merged = pl.concat(frames)
        return merged.with_columns(side=pl.Series(self.side_of_run).gather(merged["run"]))


def of_captures(before: Sequence[Capture], after: Sequence[Capture]) -> Contrast:
    """Compare captures with captures."""
    return of_tables([Tables(one) for one in before], [Tables(one) for one in after])


def of_tables(before: Sequence[Tables], after: Sequence[Tables]) -> Contrast:
    """Compare captures with captures, some of which may be analysed already."""
    loaded = [(0, tables) for tables in before] + [(1, tables) for tables in after]
    names = (_names(before), _names(after))
    whole = min(len(before), len(after)) >= MINIMUM_RUNS
    parts: list[Part] = []
    side_of_run: list[int] = []
    for side, tables in loaded:
        entries = _entries(tables)
        blocks = 1 if whole else BLOCKS
        stretch = _stretch(tables, entries, len(side_of_run), blocks)
        run = stretch.run(entries["start_ns"])
        parts.append(Part(tables, _spread(tables, entries, run.to_numpy()), (stretch,)))
        side_of_run += [side] * blocks
    unit: Unit = "run" if whole else "block of time"
    return _checked(Contrast(names, tuple(parts), np.array(side_of_run), unit, "captures"))


def of_moment(tables: Tables, at_ns: int) -> Contrast:
    """Compare the requests that began before a moment with those that began from it on."""
    entries = _entries(tables)
    at_ns = max(-_EVER, min(at_ns, _EVER))
    side = (entries["start_ns"] >= at_ns).cast(pl.Int64).to_numpy()
    moment = timestamp(at_ns)
    names = (f"before {moment}", f"from {moment}")
    contrast = _within(tables, entries, side, names, "time")
    times = []
    for number in (0, 1):
        mine = entries.filter(pl.Series(side == number))
        times.append(_stretch(tables, mine, number * BLOCKS, BLOCKS))
    part = contrast.parts[0]
    cut = (times[0]._replace(until_ns=at_ns), times[1]._replace(since_ns=at_ns))
    return replace(contrast, parts=(replace(part, times=cut),))


def of_endpoints(tables: Tables, names: tuple[str, str]) -> Contrast:
    """Compare one endpoint with another, named with their method or by path alone."""
    entries = _entries(tables)
    path = pl.col("endpoint").str.splitn(" ", 2).struct.field("field_1")
    side = np.full(entries.height, -1)
    for number, name in enumerate(names):
        named = entries.select((pl.col("endpoint") == name) | (path == name).fill_null(False))
        side[named.to_series().to_numpy()] = number
        if number not in side:
            known = entries["endpoint"].value_counts(sort=True)["endpoint"].head(8).to_list()
            raise UsageError(
                f"no request to endpoint {name!r}", hint=f"there are: {', '.join(known) or 'none'}"
            )
    return _within(tables, entries, side, names, "endpoints")


def of_predicates(tables: Tables, texts: tuple[str, str]) -> Contrast:
    """Compare the requests for which one SQL predicate holds with those for which another does."""
    entries = _entries(tables)
    chosen = [entries["request_row"].is_in(_holding(tables, text).implode()) for text in texts]
    both = int((chosen[0] & chosen[1]).sum())
    if both:
        raise UsageError(
            f"requests that are on both sides: {both}, of {texts[0]!r} and {texts[1]!r}",
            hint="write predicates of which only one can hold",
        )
    side = np.where(chosen[0].to_numpy(), 0, np.where(chosen[1].to_numpy(), 1, -1))
    return _within(tables, entries, side, texts, "predicates")


def of_tail(tables: Tables) -> Contrast:
    """Compare the slowest requests of every endpoint with its typical ones."""
    entries = _entries(tables)
    side, few = tail_side(entries)
    notes: tuple[str, ...] = ()
    if few == entries.height > 0:
        raise UsageError(
            f"nothing to compare: no endpoint has {FEWEST_REQUESTS} requests",
            hint="record for longer, or compare two endpoints, moments (--at) or captures",
        )
    if few:
        notes = (f"left out: {few} requests to endpoints with fewer than {FEWEST_REQUESTS}",)
    return _within(tables, entries, side, ("typical requests", "slow requests"), "tail", notes)


def tail_side(requests: pl.DataFrame) -> tuple[Ints, int]:
    """Return which requests are typical (0), slow (1) or neither (-1) for their endpoint.

    `requests` has service, endpoint, duration_ns and adjusted_count. Also returns how many belong
    to endpoints with too few requests to tell.
    """
    code, distinct = codes(requests, ["service", "endpoint"])
    duration = requests["duration_ns"].to_numpy()
    weight = requests["adjusted_count"].to_numpy()
    marks = quantiles(code, duration, weight, distinct.height, [TYPICAL_LEVEL, SLOW_LEVEL])
    enough = np.bincount(code, minlength=distinct.height)[code] >= FEWEST_REQUESTS
    typical = duration <= marks[code, 0]
    slow = (duration >= marks[code, 1]) & ~typical
    side: Ints = np.where(enough & typical, 0, np.where(enough & slow, 1, -1))
    return side, int((~enough).sum())


def _entries(tables: Tables) -> pl.DataFrame:
    return tables.columns("requests", "entry", *_OF_ENTRY).filter("entry")


def _holding(tables: Tables, text: str) -> pl.Series:
    """Return the entries for which a predicate holds, which may name any column of `requests`."""
    return pl.concat(
        holding(shard["requests"].filter("entry").collect(), text)["request_row"]
        for shard in tables.shards_of("requests")
    )


def _within(
    tables: Tables,
    entries: pl.DataFrame,
    side: Ints,
    names: tuple[str, str],
    about: About,
    notes: tuple[str, ...] = (),
) -> Contrast:
    """Return two populations of one capture."""
    part, side_of_run = _blocks(tables, entries, side)
    return _checked(Contrast(names, (part,), np.array(side_of_run), "block of time", about, notes))


def _blocks(tables: Tables, entries: pl.DataFrame, side: Ints) -> tuple[Part, list[int]]:
    """Cut each side into blocks of equal time; sides -1 are left out. Returns each block's side."""
    run = np.full(entries.height, -1)
    side_of_run: list[int] = []
    for number in (0, 1):
        mine = side == number
        if not mine.any():
            continue
        stretch = _stretch(tables, entries.filter(pl.Series(mine)), len(side_of_run), BLOCKS)
        run[mine] = stretch.run(entries["start_ns"].filter(pl.Series(mine))).to_numpy()
        side_of_run += [number] * BLOCKS
    return Part(tables, _spread(tables, entries, run)), side_of_run


def _stretch(tables: Tables, entries: pl.DataFrame, first_run: int, blocks: int) -> Stretch:
    """Return the time that entries begin in, in blocks; without entries, that of the capture."""
    start, end = entries["start_ns"].min(), entries["start_ns"].max()
    if start is None:
        facts = tables.frame("facts").row(0, named=True)
        start, end = facts["start_ns"] or 0, facts["end_ns"] or 0
    assert isinstance(start, int)
    assert isinstance(end, int)
    return Stretch(start, (end - start) // blocks + 1, blocks, first_run)


def _spread(tables: Tables, entries: pl.DataFrame, run: Ints) -> Ints:
    """Return the run of every row of `tree`."""
    entry = tables.columns("tree", "entry_row")["entry_row"]
    of_entry = np.full(len(entry) + 1, -1)
    of_entry[entries["request_row"].to_numpy()] = run
    spread: Ints = of_entry[entry.fill_null(len(entry)).to_numpy()]
    return spread


def _names(side: Sequence[Tables]) -> str:
    first = side[0].capture.path.name
    return first if len(side) == 1 else f"{first} and {len(side) - 1} more"


def _checked(contrast: Contrast) -> Contrast:
    """Return the contrast. Raises UsageError when a side has nothing that can be compared."""
    present = set(contrast.side_of_run[_runs_with_requests(contrast)].tolist())
    code = contrast.about == "captures" and all(
        part.tables.has_rows("samples") for part in contrast.parts
    )
    for side, name in enumerate(contrast.names):
        if side not in present and not code:
            raise UsageError(
                f"nothing to compare: there is no request on the side “{name}”",
                hint="look at what there is with `perfkit show`, change filters, or record longer",
            )
    return contrast


def _runs_with_requests(contrast: Contrast) -> Ints:
    seen = np.zeros(contrast.runs + 1, dtype=np.bool_)
    for part in contrast.parts:
        seen[part.run_of_row] = True  # -1, of neither side, is the last
    return np.flatnonzero(seen[:-1])
