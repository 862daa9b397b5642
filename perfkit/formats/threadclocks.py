"""When threads ran, by the kernel's clocks of them: points of (time, CPU time until then)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from perfkit.formats import cputime

# Runs and pauses shorter than this, a twentieth of the time between two looks, only make rows.
MIN_PIECE_NS = 1_000_000
# A thread that ran for at least this share of the time was not asked (see `ThreadWatcher`).
_RUNS_ON = 0.9

Int = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]


class ThreadClocks:
    """The clocks of threads, which are numbered from 0 in the order of their `tids`."""

    def __init__(self, times: Int, tids: Int, busy_ns: Int) -> None:
        """Take points in any order: when, of which thread, and how long it had run by then."""
        order = np.lexsort((times, tids))
        self.tids, first = np.unique(tids[order], return_index=True)
        counts = np.diff(np.append(first, len(order)))
        when: Int = times[order].astype(np.int64)
        self.first_ns, self.last_ns = when[first], when[first + counts - 1]
        """When each was read for the first and for the last time."""
        self._epoch_ns = int(when.min()) if len(when) else 0
        self._span_ns = int(when.max()) - self._epoch_ns + 2 if len(when) else 1
        self._when, self._owner = when, np.repeat(np.arange(len(first)), counts)
        self._busy_ns = _smooth(when, busy_ns[order].astype(np.int64), self._owner)
        self._keys = self.key(self._owner, when)
        begins, ends, runner = _runs(when, self._busy_ns, self._owner)
        self.changes = np.column_stack((self.key(runner, begins), self.key(runner, ends))).ravel()
        """Alternating begins and ends of runs, of all threads, as one sorted array of keys."""

    def key(self, thread: Int, when: Int) -> Int:
        """Map (thread, time) to one number that sorts by thread and then by time."""
        key: Int = thread * self._span_ns + (when - self._epoch_ns)
        return key

    def changed_ns(self) -> Int:
        """Return when the `changes` were."""
        return self.changes - self.changes // self._span_ns * self._span_ns + self._epoch_ns

    def ran_ns(self, thread: Int, start: Int, end: Int) -> Float:
        """Return for how long threads (by number) ran between two moments."""
        first, last = self.first_ns[thread], self.last_ns[thread]
        low, high = (self.key(thread, np.clip(when, first, last)) for when in (start, end))
        clock = self._keys, self._busy_ns
        cpu: Float = np.interp(high, *clock) - np.interp(low, *clock)
        # A number that is given to a second thread begins at 0 again.
        return np.maximum(cpu, 0.0)

    def all_ran_ns(self) -> Float:
        """Return for how long each thread ran while it was watched."""
        return self.ran_ns(np.arange(len(self.tids)), self.first_ns, self.last_ns)

    def running_on(self) -> cputime.Looks:
        """Return a moment between any two points between which a thread ran all the time."""
        length, run = np.diff(self._when), np.diff(self._busy_ns)
        same = self._owner[1:] == self._owner[:-1]
        whole = np.flatnonzero(same & (length > 0) & (run > _RUNS_ON * length))
        moment = self._when[whole] + length[whole] // 2
        return cputime.Looks(self._owner[whole], moment, np.ones(len(whole), dtype=np.bool_))


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
    run = np.where(run < MIN_PIECE_NS, 0, run)
    run = np.where(length - run < MIN_PIECE_NS, length, run)
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
