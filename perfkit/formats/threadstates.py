"""Gives samples their state, running or idle, from the log of when threads ran (`threadlog.py`)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from perfkit.formats.threadlog import DIED, GIL_HELD, GIL_WATCHED, POLLED, ROW_BYTES, TICK

# Runs and pauses shorter than this, a twentieth of the time between two looks, only make rows.
_MIN_PIECE_NS = 1_000_000
# What one look at the GIL stands for at most, when the next one comes late on a busy machine.
_MAX_LOOK_NS = 200_000_000

Int = npt.NDArray[np.int64]


class ThreadStates:
    """A log, read: when each thread ran, when it died, and when which process was watched."""

    def __init__(self, data: bytes, offset_ns: int) -> None:
        """Read a log (a cut last row is ignored); `offset_ns` turns its times into Unix times."""
        rows = np.frombuffer(data[: len(data) // ROW_BYTES * ROW_BYTES], dtype="<i8").reshape(-1, 3)
        times, subjects, values = rows[:, 0] + offset_ns, rows[:, 1], rows[:, 2]
        points = np.flatnonzero(values >= 0)
        points = points[np.lexsort((times[points], subjects[points]))]
        self._tids, first = np.unique(subjects[points], return_index=True)
        counts = np.diff(np.append(first, len(points)))
        when: Int = times[points].astype(np.int64)
        self._first_ns, self._last_ns = when[first], when[first + counts - 1]
        self._epoch_ns = int(when.min()) if len(when) else 0
        self._span_ns = int(when.max()) - self._epoch_ns + 2 if len(when) else 1
        owner = np.repeat(np.arange(len(first)), counts)
        busy = _smooth(when, values[points].astype(np.int64), owner)
        begins, ends, runner = _runs(when, busy, owner)
        # Alternating begins and ends of runs, of all threads, as one sorted array of keys.
        self._changes = np.column_stack(
            (self._key(runner, begins), self._key(runner, ends))
        ).ravel()
        self._deaths = pl.DataFrame(
            {"tid": subjects[values == DIED], "died_ns": times[values == DIED]}
        ).sort("died_ns")
        self._watched = pl.DataFrame(
            {"pid": subjects[values == POLLED], "watched_ns": times[values == POLLED]}
        ).sort("watched_ns")
        self._ticks: Int = np.unique(times[values == TICK])
        self._gil_pids = np.unique(subjects[values == GIL_WATCHED])
        self._held = self._looks_that_found_a_holder(times, subjects, values)

    def _key(self, thread: Int, when: Int) -> Int:
        """Map (thread, time) to one number that sorts by thread and then by time."""
        key: Int = thread * self._span_ns + (when - self._epoch_ns)
        return key

    def apply(self, samples: pl.DataFrame) -> pl.DataFrame:
        """Clip the samples of threads that died, and set `state`, splitting where it changes.

        Also sets `gil_ns`. `samples` has the schema of the table; rows without a time are returned
        as they are.
        """
        timed = pl.col("ts_ns").is_not_null() & pl.col("duration_ns").is_not_null()
        clipped = self._clip(samples.filter(timed))
        whole = self._with_gil(self._with_states(clipped))
        return pl.concat([samples.filter(~timed), whole])

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
        known = samples["tid"].is_in(self._tids.tolist())
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

    def _with_states(self, samples: pl.DataFrame) -> pl.DataFrame:
        tid = samples["tid"].fill_null(-1).to_numpy().astype(np.int64)
        start = samples["ts_ns"].to_numpy().astype(np.int64)
        end = start + samples["duration_ns"].to_numpy().astype(np.int64)
        if not len(self._tids) or not len(start):
            return samples
        thread = np.minimum(np.searchsorted(self._tids, tid), len(self._tids) - 1)
        first, last = self._first_ns[thread], self._last_ns[thread]
        known = (self._tids[thread] == tid) & (start < last) & (end > first)
        # Where a sample goes beyond what was watched, its outermost state is taken to go on.
        # A change close to its ends is not worth a row of its own.
        margin = np.minimum(_MIN_PIECE_NS, (end - start) // 2)
        low_key = self._key(thread, np.clip(start + margin, first, last))
        high_key = self._key(thread, np.clip(end - margin, first, last))
        low = np.searchsorted(self._changes, low_key, side="right")
        high = np.maximum(np.searchsorted(self._changes, high_key, side="left"), low)
        pieces = np.where(known, high - low + 1, 1)
        owner = np.repeat(np.arange(len(tid)), pieces)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        change = low[owner] + place  # the change that ends a piece; the one before begins it
        at = self._changes - self._changes // self._span_ns * self._span_ns + self._epoch_ns
        at = np.append(at, 0)
        begin = np.where(place == 0, start[owner], at[change - 1])
        finish = np.where(
            place == pieces[owner] - 1, end[owner], at[np.minimum(change, len(at) - 1)]
        )
        # Every thread has an even number of changes, so an odd one is the end of a run.
        state = np.where(change % 2 == 1, "running", "idle")
        return samples[owner].with_columns(
            ts_ns=pl.Series(begin),
            duration_ns=pl.Series(finish - begin),
            state=pl.select(
                pl.when(pl.Series(known[owner])).then(pl.Series(state)).otherwise(None)
            ).to_series(),
        )


def _smooth(times: Int, busy: Int, owner: Int) -> Int:
    """Return `busy` such that no thread is busy for longer than the time that passed.

    The kernel brings the number of a running thread up to date only at its ticks, so values jump.
    What is too much for the time since the last look belongs before it:
    busy'(t) = t + max over s >= t of (busy(s) - s), for each thread.
    """
    if not len(times):
        return busy
    first = np.searchsorted(owner, np.arange(owner[-1] + 1))
    since_first = busy - busy[first][owner]
    excess = since_first - (times - times.min())
    # One running maximum serves all threads: those further on are lowered out of reach.
    lowered = excess - owner * (excess.max() - excess.min() + 1)
    peaks = np.maximum.accumulate(lowered[::-1])[::-1]
    smooth: Int = since_first + (peaks - lowered)
    return smooth


def _runs(times: Int, busy: Int, owner: Int) -> tuple[Int, Int, Int]:
    """Return when threads ran, as (begin, end, position of the thread), in order.

    How long a thread ran between two looks is known, but not when: the run is put to the side on
    which it ran more before or after, so that a run over several looks has sharp ends.
    """
    same = owner[1:] == owner[:-1]
    length, run = (np.diff(times) * same), (np.diff(busy) * same)
    run = np.where(run < _MIN_PIECE_NS, 0, run)
    run = np.where(length - run < _MIN_PIECE_NS, length, run)
    ratio = run / np.maximum(length, 1)
    before = np.where(np.append(False, same[:-1]), np.append(0.0, ratio[:-1]), 0.0)
    after = np.where(np.append(same[1:], False), np.append(ratio[1:], 0.0), 0.0)
    late = after > before
    begin = np.where(late, times[1:] - run, times[:-1])
    end = np.where(late, times[1:], times[:-1] + run)
    ran = run > 0
    begin, end, thread = begin[ran], end[ran], owner[:-1][ran]
    joined = (begin[1:] == end[:-1]) & (thread[1:] == thread[:-1])
    starts = np.append(True, ~joined)[: len(begin)]
    stops = np.append(~joined, True)[: len(begin)]
    return begin[starts], end[stops], thread[starts]
