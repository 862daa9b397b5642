"""Gives samples their state, running or idle, from the log of when threads ran (`threadlog.py`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from perfkit.formats import cputime, unreadtime
from perfkit.formats.threadclocks import MIN_PIECE_NS, ThreadClocks
from perfkit.formats.threadlog import (
    DIED,
    GIL_HELD,
    GIL_WATCHED,
    POLLED,
    ROW_BYTES,
    RUNS,
    SLEEPS,
    TICK,
)

# What one look at the GIL stands for at most, when the next one comes late on a busy machine.
_MAX_LOOK_NS = 200_000_000
# Less than this is what a thread uses to wake up and to fall asleep.
_MIN_RUN_NS = 100_000
# A run stays as it was placed when it is to be longer or shorter by no more than this share.
_KEPT_RATIO = 0.05

Int = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]


class ThreadStates:
    """A log, read: when each thread ran, when it died, and when which process was watched."""

    def __init__(self, data: bytes, offset_ns: int) -> None:
        """Read a log (a cut last row is ignored); `offset_ns` turns its times into Unix times."""
        rows = np.frombuffer(data[: len(data) // ROW_BYTES * ROW_BYTES], dtype="<i8").reshape(-1, 3)
        times, subjects, values = rows[:, 0] + offset_ns, rows[:, 1], rows[:, 2]
        points = (values >= 0) & (subjects >= 0)
        self._clocks = ThreadClocks(times[points], subjects[points], values[points])
        self._deaths = pl.DataFrame(
            {"tid": subjects[values == DIED], "died_ns": times[values == DIED]}
        ).sort("died_ns")
        self._watched = pl.DataFrame(
            {"pid": subjects[values == POLLED], "watched_ns": times[values == POLLED]}
        ).sort("watched_ns")
        self._ticks: Int = np.unique(times[values == TICK])
        self._gil_pids = np.unique(subjects[values == GIL_WATCHED])
        self._held = self._looks_that_found_a_holder(times, subjects, values)
        self._looks = self._answers(times, subjects, values)
        of_process = (values >= 0) & (subjects < 0)
        self._unread = _growth(-subjects[of_process], times[of_process], values[of_process])

    def apply(
        self, samples: pl.DataFrame, look_ns: int, innermost: Mapping[int, int]
    ) -> pl.DataFrame:
        """Clip the samples of threads that died, and set `state`, splitting where it changes.

        Also sets `unseen_ns` and `gil_ns`. `samples` has the schema of the table; rows without a
        time are returned as they are. `look_ns` is how far apart the stacks were seen,
        `innermost` the innermost frame by stack: what it does is the same in every stack.
        """
        timed = pl.col("ts_ns").is_not_null() & pl.col("duration_ns").is_not_null()
        clipped = self._cut_at_last_look(self._clip(samples.filter(timed)))
        whole = self._with_gil(self._with_states(clipped, look_ns, innermost))
        return pl.concat([samples.filter(~timed), whole])

    def _answers(self, times: Int, subjects: Int, values: Int) -> cputime.Looks:
        """Return when threads were asked whether they run, with those that needed no question."""
        whole = self._clocks.running_on()
        asked = np.flatnonzero((values == RUNS) | (values == SLEEPS))
        asked = asked[np.isin(subjects[asked], self._clocks.tids)]
        return cputime.Looks(
            np.append(whole.thread, np.searchsorted(self._clocks.tids, subjects[asked])),
            np.append(whole.at_ns, times[asked]),
            np.append(whole.running, values[asked] == RUNS),
        )

    def _looks_that_found_a_holder(self, times: Int, subjects: Int, values: Int) -> pl.DataFrame:
        """Return the looks at which a thread held the GIL, each with the time that it stands for:
        until the next look."""
        held = values == GIL_HELD
        position = np.searchsorted(self._ticks, times[held], side="right")
        following = np.append(self._ticks, 0)[position]
        lasted = np.clip(following - times[held], 0, _MAX_LOOK_NS)
        return pl.DataFrame(
            {"tid": subjects[held], "look_ns": times[held], "lasted_ns": lasted}
        ).sort("look_ns")

    def _with_gil(self, samples: pl.DataFrame) -> pl.DataFrame:
        """Set `gil_ns`: the sum of the looks that fell into a row and found its thread holding."""
        rows = samples.with_row_index("row")
        found = (
            self._held.join_asof(
                rows.select("row", "tid", "ts_ns", "duration_ns").sort("ts_ns"),
                left_on="look_ns",
                right_on="ts_ns",
                by="tid",
                strategy="backward",
                check_sortedness=False,
            )
            .filter(pl.col("look_ns") < pl.col("ts_ns") + pl.col("duration_ns"))
            .group_by("row")
            .agg(pl.col("lasted_ns").sum())
        )
        watched = pl.col("pid").is_in(self._gil_pids.tolist())
        gil_ns = pl.when(watched).then(pl.col("lasted_ns").fill_null(0))
        joined = rows.join(found, on="row", how="left", maintain_order="left")
        return joined.with_columns(gil_ns=gil_ns).select(samples.columns)

    def _clip(self, samples: pl.DataFrame) -> pl.DataFrame:
        """End samples when their thread died: py-spy leaves the last stack of a thread open."""
        known = samples["tid"].is_in(self._clocks.tids.tolist())
        # A thread that we never saw, of a process that we watched, was gone at our next look.
        starts = samples["ts_ns"].to_numpy()
        position = np.searchsorted(self._ticks, starts, side="right")
        next_look = np.append(self._ticks, np.iinfo(np.int64).max)[position]
        frame = (
            samples.with_row_index("order")
            .with_columns(known=known, next_look_ns=pl.Series(next_look))
            .sort("ts_ns")
            .join_asof(
                self._deaths,
                left_on="ts_ns",
                right_on="died_ns",
                by="tid",
                strategy="forward",
                check_sortedness=False,
            )
            .join_asof(
                self._watched,
                left_on="ts_ns",
                right_on="watched_ns",
                by="pid",
                strategy="backward",
                check_sortedness=False,
            )
            .sort("order")
        )
        unseen = ~pl.col("known") & pl.col("watched_ns").is_not_null()
        end = pl.min_horizontal(
            pl.col("ts_ns") + pl.col("duration_ns"),
            pl.when(unseen).then("next_look_ns").otherwise("died_ns"),
        )
        clipped = frame.with_columns(duration_ns=end - pl.col("ts_ns"))
        return clipped.filter(pl.col("duration_ns") > 0).select(samples.columns)

    def _cut_at_last_look(self, samples: pl.DataFrame) -> pl.DataFrame:
        """Divide what a thread did last where its clock was read for the last time."""
        read = pl.DataFrame({"tid": self._clocks.tids, "last_ns": self._clocks.last_ns})
        rows = samples.with_row_index("order").join(read, on="tid", how="left").sort("order")
        end = pl.col("ts_ns") + pl.col("duration_ns")
        ended = pl.col("tid").is_in(self._deaths["tid"].unique().to_list())
        ended &= pl.col("pid").is_in(list(self._unread))
        inside = pl.col("last_ns").is_between(pl.col("ts_ns") + MIN_PIECE_NS, end - MIN_PIECE_NS)
        cut = (ended & inside).fill_null(False)
        after = rows.filter(cut).with_columns(
            ts_ns=pl.col("last_ns"), duration_ns=end - pl.col("last_ns")
        )
        before = pl.when(cut).then(pl.col("last_ns") - pl.col("ts_ns")).otherwise("duration_ns")
        whole = pl.concat([rows.with_columns(duration_ns=before), after])
        return whole.sort("order", "ts_ns").select(samples.columns)

    def _with_states(
        self, samples: pl.DataFrame, look_ns: int, innermost: Mapping[int, int]
    ) -> pl.DataFrame:
        tid = samples["tid"].fill_null(-1).to_numpy().astype(np.int64)
        start = samples["ts_ns"].to_numpy().astype(np.int64)
        end = start + samples["duration_ns"].to_numpy().astype(np.int64)
        clocks = self._clocks
        if not len(clocks.tids) or not len(start):
            return samples
        thread = np.minimum(np.searchsorted(clocks.tids, tid), len(clocks.tids) - 1)
        known = (clocks.tids[thread] == tid) & (start < clocks.last_ns[thread])
        known &= end > clocks.first_ns[thread]
        pieces = self._pieces(thread, start, end, known)
        frame = _frames(samples, innermost)
        ran, unseen = np.zeros(len(tid)), np.zeros(len(tid))
        if known.any():
            rows = np.flatnonzero(known)
            placed, watched = self._placed(pieces, thread)
            parts = samples["pid"][rows], frame[rows], thread[rows], start[rows], end[rows]
            clocked = self._rows(*parts, watched[rows], look_ns)
            ran[rows], unseen[rows] = cputime.allot(clocked)
            ran[rows] += (placed - watched)[rows]
            pieces = _replaced(pieces, rows, ran[rows], placed, start, end)
        rows, process, cpu_ns = self._of_unread(samples["pid"], known)
        if len(rows):
            share = np.full(int(frame.max()) + 1, np.nan)
            if known.any():
                cpu_ns += self._outside(samples["pid"].gather(np.flatnonzero(known)), clocked)
                share = unreadtime.running_share(clocked, len(share), look_ns)
            length = (end - start)[rows]
            ran[rows], unseen[rows] = unreadtime.allot(process, frame[rows], length, share, cpu_ns)
            told = rows[~np.isnan(ran[rows])]
            # Their state is not what was placed: there was no clock.
            pieces = _replaced(pieces, told, ran[told], np.full(len(tid), -1.0), start, end)
            known[told] = True
        owner, last = pieces.owner, np.append(pieces.owner[1:] != pieces.owner[:-1], True)
        is_known = pl.Series(known[owner])
        state = pl.Series(np.where(pieces.running, "running", "idle"))
        unseen_ns = pl.Series(np.where(last, np.rint(unseen[owner]), 0).astype(np.int64))
        counted = known.copy()
        counted[rows] = True
        return samples[owner].with_columns(
            ts_ns=pl.Series(pieces.begin),
            duration_ns=pl.Series(pieces.length),
            state=state.set(~is_known, None),
            unseen_ns=unseen_ns.set(pl.Series(~counted[owner]), None),
        )

    def _pieces(self, thread: Int, start: Int, end: Int, known: npt.NDArray[np.bool_]) -> _Pieces:
        """Cut rows where their thread began or ceased to run, as far as that can be placed."""
        first, last = self._clocks.first_ns[thread], self._clocks.last_ns[thread]
        # Where a sample goes beyond what was watched, its outermost state is taken to go on.
        # A change close to its ends is not worth a row of its own.
        margin = np.minimum(MIN_PIECE_NS, (end - start) // 2)
        low_key = self._clocks.key(thread, np.clip(start + margin, first, last))
        high_key = self._clocks.key(thread, np.clip(end - margin, first, last))
        low = np.searchsorted(self._clocks.changes, low_key, side="right")
        high = np.maximum(np.searchsorted(self._clocks.changes, high_key, side="left"), low)
        pieces = np.where(known, high - low + 1, 1)
        owner = np.repeat(np.arange(len(thread)), pieces)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        change = low[owner] + place  # the change that ends a piece; the one before begins it
        at = np.append(self._clocks.changed_ns(), 0)
        begin = np.where(place == 0, start[owner], at[change - 1])
        finish = np.where(
            place == pieces[owner] - 1, end[owner], at[np.minimum(change, len(at) - 1)]
        )
        # Every thread has an even number of changes, so an odd one is the end of a run.
        return _Pieces(owner, begin, finish - begin, change % 2 == 1)

    def _placed(self, pieces: _Pieces, thread: Int) -> tuple[Float, Float]:
        """Return for how long each row runs, and for how long of that its thread was watched."""
        owner = thread[pieces.owner]
        first, last = self._clocks.first_ns[owner], self._clocks.last_ns[owner]
        begin, end = (
            np.clip(when, first, last) for when in (pieces.begin, pieces.begin + pieces.length)
        )
        whole, watched = (
            np.bincount(pieces.owner, length * pieces.running, len(thread)).astype(np.float64)
            for length in (pieces.length, end - begin)
        )
        return whole, watched

    def _of_unread(self, pid: pl.Series, known: npt.NDArray[np.bool_]) -> tuple[Int, Int, Float]:
        """Return the rows of threads whose clock was not read, the number of the process of each,
        and the CPU time of no thread that each of those processes used."""
        watched = list(self._unread)
        number = pid.replace_strict(
            watched, list(range(len(watched))), default=-1, return_dtype=pl.Int64
        ).to_numpy()
        rows = np.flatnonzero(~known & (number >= 0))
        return rows, number[rows], np.array([self._unread[one] for one in watched], np.float64)

    def _outside(self, pid: pl.Series, rows: cputime.Rows) -> Float:
        """Return by process what threads that ended ran before and after they were seen."""
        ran = self._clocks.all_ran_ns()
        seen = np.bincount(rows.thread, rows.cpu_ns, len(ran))
        ended = np.isin(self._clocks.tids, self._deaths["tid"].to_numpy())
        outside = np.where(ended, np.maximum(ran - seen, 0.0), 0.0)
        threads = pl.DataFrame({"pid": pid, "thread": rows.thread}).unique("thread")
        by_process = (
            threads.with_columns(pl.Series("ns", outside[threads["thread"]]))
            .group_by("pid")
            .agg(pl.col("ns").sum())
        )
        found = dict(by_process.iter_rows())
        return np.array([found.get(pid, 0.0) for pid in self._unread])

    def _rows(
        self,
        pid: pl.Series,
        stack: Int,
        thread: Int,
        start: Int,
        end: Int,
        placed: Float,
        look_ns: int,
    ) -> cputime.Rows:
        """Return what the clocks say of rows whose thread is known."""
        # py-spy's looks are that late on average (see `StackMeta.anchor_wall_ns`).
        late_ns = round(math.log(2) * look_ns)
        times, running = cputime.asked(
            thread, stack, start + late_ns, end + late_ns, self._looks, look_ns
        )
        return cputime.Rows(
            thread=thread,
            stack=stack,
            length_ns=end - start,
            ran_ns=np.rint(placed).astype(np.int64),
            asked=times,
            running=running,
            cpu_ns=self._clocks.ran_ns(thread, start, end),
            near_ns=self._clocks.ran_ns(thread, *cputime.near(start, end)),
            obtainable=self._obtainable(pid, thread),
        )

    def _obtainable(self, pid: pl.Series, thread: Int) -> Float:
        """Return for each row which share of the time its thread could run if it wanted to.

        It cannot while another thread of its process holds the interpreter's lock; where the lock
        is not watched, whatever runs is taken to hold it.
        """
        clocks = self._clocks
        ran, watched = clocks.all_ran_ns(), clocks.last_ns - clocks.first_ns
        held = self._held.group_by("tid").agg(held=pl.col("lasted_ns").sum())
        known = pl.DataFrame({"tid": clocks.tids, "ran": ran, "watched": watched})
        known = known.join(held, on="tid", how="left", maintain_order="left")
        rows = pl.DataFrame({"pid": pid, "thread": thread})
        threads = rows.unique()
        threads = threads.with_columns(known[threads["thread"]].fill_null(0))
        locked = pl.when(pl.col("pid").is_in(self._gil_pids.tolist())).then("held").otherwise("ran")
        others = (locked.sum().over("pid") - locked) / pl.col("watched").max().over("pid")
        threads = threads.with_columns(free=(1 - others).clip(0, 1).fill_nan(1))
        joined = rows.join(
            threads.select("pid", "thread", "free"),
            on=["pid", "thread"],
            how="left",
            nulls_equal=True,
            maintain_order="left",
        )
        free: Float = joined["free"].fill_null(1).to_numpy()
        return free


def _frames(samples: pl.DataFrame, innermost: Mapping[int, int]) -> Int:
    """Number the innermost frame of each row in its process, from 0."""
    code = pl.col("stack_id").replace_strict(
        list(innermost), list(innermost.values()), default=pl.col("stack_id"), return_dtype=pl.Int64
    )
    numbers = samples.select(pl.struct("pid", code=code).rank("dense").cast(pl.Int64) - 1)
    return numbers.to_series().to_numpy()


def _growth(pids: Int, times: Int, values: Int) -> dict[int, float]:
    """Return by process how much its number grew."""
    grew = (
        pl.DataFrame({"pid": pids, "at": times, "value": values})
        .sort("at")
        .group_by("pid", maintain_order=True)
        .agg(pl.col("value").last() - pl.col("value").first())
    )
    return {pid: max(0.0, float(value)) for pid, value in grew.iter_rows()}


@dataclass(frozen=True)
class _Pieces:
    """Parts of rows in which the state stays the same, in the order of the rows and of time."""

    owner: Int
    """Position of the row."""
    begin: Int
    length: Int
    running: npt.NDArray[np.bool_]


def _replaced(
    pieces: _Pieces, rows: Int, ran: Float, placed: Float, start: Int, end: Int
) -> _Pieces:
    """Give `rows` the running time `ran`; those that nearly have it keep it where it was placed."""
    length = (end - start)[rows]
    run = np.where(ran < _MIN_RUN_NS, 0, np.rint(ran)).astype(np.int64)
    run = np.minimum(run, length)
    changed = np.abs(run - placed[rows]) > _KEPT_RATIO * placed[rows]
    rows, run, length = rows[changed], run[changed], length[changed]
    kept = ~np.isin(pieces.owner, rows)
    ones = np.ones(len(rows), dtype=np.bool_)
    owner = np.concatenate([pieces.owner[kept], rows, rows])
    begin = np.concatenate([pieces.begin[kept], start[rows], start[rows] + run])
    size = np.concatenate([pieces.length[kept], run, length - run])
    running = np.concatenate([pieces.running[kept], ones, ~ones])
    order = np.lexsort((begin, owner))
    order = order[size[order] > 0]
    return _Pieces(owner[order], begin[order], size[order], running[order])
