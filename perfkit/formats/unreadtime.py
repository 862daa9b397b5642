"""CPU time that was read of a process but of none of its threads, and the stacks that used it.

A thread that begins and ends between two looks is never asked how long it ran, and one that ends is
not asked for what it did last. The clock of the process counts both. A server that starts a thread
for each request may do most of its work so. What such a thread did is judged by what others did in
the same code: a line at which threads wait gets nothing of that time.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from perfkit.formats.cputime import Rows

Int = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]

_ENOUGH_LOOKS = 5
"""A line at which threads were so often seen while their clock stood still waits (our own)."""


def running_share(rows: Rows, frames: int, look_ns: int) -> Float:
    """Return for each of `frames` innermost frames how often threads ran in it, NaN if unknown.

    The rows are those of threads whose clock was read. Who did not run since the last look was not
    asked whether it runs.
    """
    length = np.bincount(rows.stack, rows.length_ns, frames)
    asked = np.bincount(rows.stack, rows.asked, frames)
    running = np.bincount(rows.stack, rows.running, frames)
    share: Float = (running + 0.5) / (asked + 1)  # the expectation, by Jeffreys' prior
    waits = (asked == 0) & (length >= _ENOUGH_LOOKS * look_ns)
    return np.where(waits, 0.0, np.where(asked > 0, share, np.nan))


def allot(
    process: Int, frame: Int, length_ns: Int, share: Float, cpu_ns: Float
) -> tuple[Float, Float]:
    """Return for each row how long it ran (NaN if unknown), and CPU time in it that is no stack's.

    Rows are of threads whose clock was not read: the number of their process, their innermost
    frame, and their length. `share` is that of each frame, `cpu_ns` what there is to be divided, by
    process. Time goes to what runs most often first, for no longer than its share of what was seen.
    Both results together are `cpu_ns`, as far as there are rows.
    """
    known = ~np.isnan(share[frame])
    room = length_ns * np.where(known, share[frame], 0.0)
    pairs, of_pair = np.unique(process * len(share) + frame, return_inverse=True)
    of_process, of_frame = np.divmod(pairs, len(share))
    rooms = np.bincount(of_pair, room, len(pairs))
    order = np.lexsort((-np.nan_to_num(share[of_frame]), of_process))
    filled_by = np.cumsum(rooms[order]) - rooms[order]
    before = filled_by - filled_by[np.searchsorted(of_process[order], of_process[order])]
    left = np.maximum(cpu_ns[of_process[order]] - before, 0.0)
    filled = np.empty(len(pairs))
    filled[order] = np.minimum(1.0, left / np.maximum(rooms[order], 1.0))
    ran = room * filled[of_pair]
    spare = np.maximum(cpu_ns - np.bincount(process, ran, len(cpu_ns)), 0.0)
    total_ns = np.bincount(process, length_ns, len(cpu_ns))
    unseen = spare[process] * length_ns / np.maximum(total_ns[process], 1)
    return np.where(known, ran, np.nan), unseen
