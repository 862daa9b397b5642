"""Which of the stacks seen on a thread used the CPU time that the kernel counted for it.

The kernel says how long a thread ran between two looks, 20 ms apart, but not when; stacks are seen
some 10 ms apart. A thread that sleeps, wakes up and computes for 3 ms is mostly seen asleep, and
the time that it computed lies anywhere. In sum both are right: code that is seen in a tenth of the
looks took a tenth of the time. So time is put together over a segment of half a minute:

- At the moments at which both a stack was seen and its thread was asked whether it runs, the two
  belong together: a stack whose thread was hardly ever found running waits (for a lock, a sleep, a
  socket). "Hardly" is measured by what a thread gets that wants to run: nothing runs while another
  thread holds the interpreter's lock.
- A thread's CPU time belongs to its stacks in this order: what runs, what runs in part, each no
  longer than it was seen. What is left was used by code that no look saw, and is no stack's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]

# Of the time that it could get, a stack that waits runs less than this share (all our own).
_WAITS = 0.2
# What runs for less than half the share of what runs most comes after it.
_RUNS = 0.5
_ENOUGH_LOOKS = 5
# Shares of less CPU time than a clock can count are not computed with: they overflow.
_LEAST_NS = 1.0
# A stack that nobody asked about runs; so many looks are as good as that.
_BELIEF = 1.0
# A thread is asked so near to the moment at which its stack was seen: what it does lasts longer.
_TOGETHER_NS = 2_000_000
# Its thread ran at most so far away, or it did not run either.
_NEAR_NS = 500_000_000
# py-spy dates the stacks of a look when it has read them all, so long for each thread after that
# (as is best for recordings of 6 and of 30 threads), and at most this.
_READ_NS, _MAX_READ_NS = 100_000, 5_000_000
_LEAST_RATIO = 0.02
# A program that uses half a core, and hardly ever in code that was seen to run, has threads that
# are kept waiting for something else.
_BUSY_CORES, _MOST_UNSEEN = 0.5, 0.5


@dataclass(frozen=True)
class Rows:
    """Stays of stacks on threads whose clock is known; those of one thread do not overlap."""

    thread: Int
    """Number of the thread, from 0."""
    stack: Int
    """Number of the stack's innermost frame in its process, from 0."""
    length_ns: Int
    ran_ns: Int
    """For how long the thread ran in it, as well as that can be placed."""
    asked: Int
    """How often the thread was asked whether it runs while it had this stack."""
    running: Int
    """How often it did."""
    cpu_ns: Float
    """CPU time of the thread in all of it."""
    near_ns: Float
    """CPU time of the thread in it and up to half a second before and after."""
    obtainable: Float
    """Which share of the time its thread could run if it wanted to."""


@dataclass(frozen=True)
class Looks:
    """Moments at which threads were asked whether they run."""

    thread: Int
    at_ns: Int
    running: npt.NDArray[np.bool_]


def asked(
    thread: Int, stack: Int, start: Int, end: Int, looks: Looks, look_ns: int
) -> tuple[Int, Int]:
    """Return for each row how often its thread was asked in it, and how often it ran.

    Rows say when a stack was seen first and when another one was, `look_ns` apart. Both programs
    that look use one clock; see `collect/pyspy_clock.py`.
    """
    order = np.lexsort((start, thread))
    rows = thread[order], start[order], np.maximum(start, end - 3 * look_ns)[order]
    row, look = _together(*rows, looks, _late_ns(start, end))
    row = order[row]
    times = np.bincount(row, minlength=len(thread))
    return times, np.bincount(row, looks.running[look], len(thread)).astype(np.int64)


def _late_ns(start: Int, end: Int) -> int:
    """Return how late the stacks of a look are dated, of as many threads as are on average seen."""
    if not len(start):
        return 0
    threads = int((end - start).sum()) / max(1, int(end.max() - start.min()))
    return min(round(threads * _READ_NS), _MAX_READ_NS)


def _together(thread: Int, seen: Int, until: Int, looks: Looks, late_ns: int) -> tuple[Int, Int]:
    """Return pairs of (row, look) that belong together; rows are by thread and time, and late."""
    if not len(thread) or not len(looks.thread):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    begin, end = seen - _TOGETHER_NS, until + _TOGETHER_NS
    at = looks.at_ns + late_ns
    origin = min(begin.min(), at.min())
    span = int(max(end.max(), at.max()) - origin + 1)
    keys = thread * span + (begin - origin)
    row = np.searchsorted(keys, looks.thread * span + (at - origin), side="right") - 1
    near = (row >= 0) & (thread[row] == looks.thread) & (at <= end[row])
    return row[near], np.flatnonzero(near)


def near(start: Int, end: Int) -> tuple[Int, Int]:
    """Return from when to when a thread must have run for a stay to have run."""
    return start - _NEAR_NS, end + _NEAR_NS


def allot(rows: Rows) -> tuple[Float, Float]:
    """Return for each row how long its stack ran, and the CPU time in it that is no stack's.

    Both together are the CPU time of each thread, unless `ran_ns` alone is more.
    """
    share = _running_share(rows)
    ran, unseen = _allot(rows, share)
    length = float(np.bincount(rows.thread, rows.length_ns).max(initial=1.0))
    if unseen.sum() > _MOST_UNSEEN * rows.cpu_ns.sum() > _MOST_UNSEEN * _BUSY_CORES * length:
        return _allot(rows, np.ones(len(share)))
    return ran, unseen


def _allot(rows: Rows, share: Float) -> tuple[Float, Float]:
    threads = _count(rows.thread)
    enough = np.bincount(rows.stack, rows.asked)[rows.stack] >= _ENOUGH_LOOKS
    best = max(float(share[enough].max(initial=0.0)), 2 * _WAITS)
    waits, runs = share < _WAITS, share >= _RUNS * best
    cpu: Float = np.bincount(rows.thread, rows.cpu_ns, threads).astype(np.float64)
    most = np.minimum(rows.length_ns * rows.obtainable * np.where(runs, 1.0, share), rows.near_ns)
    most = np.where(waits, 0.0, np.maximum(most, rows.ran_ns))
    # Without a stack that waits there is none that its time could be taken for.
    seen_waiting = np.bincount(rows.thread, waits, threads) > 0
    most = np.where(seen_waiting[rows.thread], most, rows.length_ns)
    ran = np.zeros(len(rows.thread))
    for members in (runs, ~runs & ~waits):
        given = _share_out(rows, np.where(members, most, 0.0), members, cpu)
        ran += given
        cpu = np.maximum(cpu - np.bincount(rows.thread, given, threads), 0.0)
    # What is left goes to where its thread's clock went on, first of all in waits.
    weight = np.where(waits, rows.cpu_ns, 0.0)
    in_waits = np.bincount(rows.thread, weight, threads) >= _LEAST_NS
    weight = np.where(in_waits[rows.thread], weight, rows.cpu_ns)
    total = np.bincount(rows.thread, weight, threads)
    unseen = weight * (cpu / np.maximum(total, _LEAST_NS))[rows.thread]
    return ran, unseen


def _share_out(rows: Rows, most: Float, members: npt.NDArray[np.bool_], cpu: Float) -> Float:
    """Return what each of the rows gets of its thread's CPU time, where the clocks put it first."""
    threads = len(cpu)
    placed = np.where(members, np.minimum(rows.ran_ns, most), 0.0)
    spare = most - placed
    base = np.bincount(rows.thread, placed, threads)
    room = np.bincount(rows.thread, spare, threads)
    down = np.minimum(1.0, cpu / np.where(base > 0, base, 1.0))
    up = np.clip((cpu - base) / np.where(room > 0, room, 1.0), 0.0, 1.0)
    given: Float = placed * down[rows.thread] + spare * up[rows.thread]
    return given


def _running_share(rows: Rows) -> Float:
    """Return which share of the time that it could get each row's stack ran, 1 where unknown."""
    got = np.maximum(rows.obtainable, _LEAST_RATIO)
    asked = np.bincount(rows.stack, rows.asked * got)
    running = np.bincount(rows.stack, rows.running)
    share: Float = np.minimum(1.0, (running + _BELIEF) / (asked + _BELIEF))[rows.stack]
    return share


def _count(numbers: Int) -> int:
    return int(numbers.max(initial=-1)) + 1
