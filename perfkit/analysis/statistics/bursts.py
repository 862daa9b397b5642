"""For a while far more requests failed than else: a scan of windows, wary of failures in batches.

Failures that come in rows or batches are fewer events than they are failures. So the evidence of a
window (the logarithm of Chernoff's bound for counts) is divided by the dispersion: by how many
times more the pieces vary, within the window and outside of it, than independent failures would
(quasi-likelihood: McCullagh and Nelder, Generalized Linear Models, 2nd ed. 1989, chapter 4.5). The
dispersion is itself known from few pieces with failures; hence the logarithm, as of Student's t.

The series is looked at in buckets, in pairs of them, in fours and so on, each time in windows of a
few pieces: failures of one piece or two may be one event, however many they are. The pieces at
either edge of a window belong to neither side.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from perfkit.analysis.statistics.shift_scan import Floats
from perfkit.analysis.vector.forest import Bools, Ints

LEAST = 4
"""Pieces in a row; failures of one moment, in one or two, are one event (as all limits here, our
own choice)."""
MIN_REQUESTS = 20
"""In those pieces; fewer give no share worth the name."""
MIN_SHARE = 0.05
"""Share of requests that fail in them."""
TIMES = 3.0
"""As many times the share in the rest."""
MOST = 0.75
"""Of the pieces in a row this part must be as bad."""
MAX_BURSTS = 10
_LONGEST = 4 * LEAST - 1
"""Longer windows are seen in pieces twice as long."""
_FEWEST = 4 * LEAST
"""So many pieces at least; the windows of the longest pieces go up to half of them."""
_BLOCKS = (2, LEAST)
"""So many pieces in a row are looked at together to see how failures go on."""
_USUAL = 0.005
"""No usual share is taken to be lower."""
_KNOWN = 10
"""By so many pieces with failures, and one more, it is reckoned at least how even failures are."""
CERTAIN = 16.0
"""Evidence that a burst needs in _BUCKETS buckets."""
_BUCKETS = 60
_WORTH = 6.0
"""Windows of as much evidence are no measure of others: several bursts would hide each other."""


class Burst(NamedTuple):
    """The buckets [first, last] in which far more requests failed."""

    first: int
    last: int
    evidence: float
    """-ln of the chance, at most, that failures that vary as these do come so by themselves."""
    uneven: float
    """The dispersion: how many failures come as one."""


class _Windows(NamedTuple):
    """Windows of pieces of one length, each a row; `first` and `last` are inside."""

    first: Ints
    last: Ints


class _Sums:
    """Sums of blocks of so many pieces in a row, from the first block up to each."""

    def __init__(self, requests: Floats, errors: Floats, length: int = 1) -> None:
        self.length = length
        one = np.ones(length)
        requests, errors = np.convolve(requests, one, "valid"), np.convolve(errors, one, "valid")
        squares = np.divide(errors**2, requests, out=np.zeros_like(errors), where=requests > 0)
        each = np.stack([requests, errors, squares, (requests > 0).astype(np.float64)])
        self.upto: Floats = np.concatenate([np.zeros((4, 1)), np.cumsum(each, axis=1)], axis=1)

    def inside(self, windows: _Windows) -> Floats:
        """Return requests, failures, squares of failures by requests, and how many had any."""
        found: Floats = self.upto[:, windows.last + 1] - self.upto[:, windows.first]
        return found

    def outside(self, windows: _Windows) -> Floats:
        """Return the same of blocks of which nothing is in a window nor next to it."""
        end = self.upto.shape[1] - 1
        after = np.minimum(windows.last + 2, end)
        before = np.clip(windows.first - self.length, 0, end)
        found: Floats = self.upto[:, [-1]] - self.upto[:, after] + self.upto[:, before]
        return found


def find_bursts(requests: Floats, errors: Floats, weight: float = 1.0) -> list[Burst]:
    """Return the bursts of evenly spaced buckets, the surest first; they do not overlap.

    `weight` is for how many failures each that was seen stands, where requests were sampled.
    """
    certain = CERTAIN + math.log(max(len(requests) / _BUCKETS, 1.0))
    worth: list[Burst] = []
    while len(worth) < MAX_BURSTS:
        best = surest(*_without(requests, errors, worth), weight)
        if best is None or best.evidence < _WORTH:
            break
        worth.append(best)
    found: list[Burst] = []
    for number in range(len(worth)):
        others = worth[:number] + worth[number + 1 :]
        best = surest(*_without(requests, errors, [*others, *found]), weight)
        if best and best.evidence >= certain:
            found.append(best)
    return sorted(found, key=lambda burst: -burst.evidence)


def _without(requests: Floats, errors: Floats, bursts: list[Burst]) -> tuple[Floats, Floats]:
    """Return what is not in bursts; in them there is no number."""
    requests, errors = requests.copy(), errors.copy()
    for burst in bursts:
        requests[burst.first : burst.last + 1] = np.nan
        errors[burst.first : burst.last + 1] = np.nan
    return requests, errors


def surest(requests: Floats, errors: Floats, weight: float = 1.0) -> Burst | None:
    """Return the surest window, however sure; buckets that are no number are in none."""
    size = 1
    found: list[Burst] = []
    while len(requests) >= LEAST * 2 * size:
        coarsest = len(requests) < _FEWEST * 2 * size
        burst = _surest_of_pieces(requests, errors, weight, size, coarsest)
        if burst:
            found.append(burst)
        if coarsest:
            break
        size *= 2
    return max(found, key=lambda burst: burst.evidence, default=None)


def _surest_of_pieces(
    requests: Floats, errors: Floats, weight: float, size: int, coarsest: bool
) -> Burst | None:
    """Return the surest window of pieces of so many buckets."""
    begins = np.arange(0, len(requests), size)
    told: Bools = np.logical_or.reduceat(np.isnan(requests), begins)
    seen = np.where(told, 0.0, np.add.reduceat(np.nan_to_num(requests), begins))
    failed = np.where(told, 0.0, np.add.reduceat(np.nan_to_num(errors), begins))
    longest = len(begins) // 2 if coarsest else _LONGEST
    windows = _candidates(seen, failed, told, min(longest, len(begins) // 2))
    if not len(windows.first):
        return None
    sums = _Sums(seen, failed)
    inside, outside = sums.inside(windows), sums.outside(windows)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = inside[1] / inside[0]
        rest = outside[1] / outside[0]
    usual = np.maximum(rest, _USUAL)
    bad = _bad(seen, failed, windows, np.maximum(MIN_SHARE, TIMES * usual))
    high = (inside[0] >= MIN_REQUESTS) & (outside[0] > 0) & bad
    high &= (share >= MIN_SHARE) & (share >= TIMES * usual)
    if not high.any():
        return None
    uneven = np.maximum(_dispersion(inside, outside, share, rest), weight)
    for length in _BLOCKS:
        blocks = _Sums(seen, failed, length).outside(windows)
        uneven = np.maximum(uneven, _dispersion_of_blocks(blocks, rest))
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = (inside[1] * np.log(share / usual) - inside[1] + inside[0] * usual) / uneven
    gain = np.where(high, gain, -np.inf)
    best = int(np.argmax(gain))
    known = max(int(np.count_nonzero(failed)) - 1, _KNOWN)
    evidence = known / 2 * math.log1p(2 * float(gain[best]) / known)
    first = int(begins[windows.first[best]])
    last = min(int(begins[windows.last[best]]) + size, len(requests)) - 1
    # Where it begins and ends is known to the bucket.
    failing = first + np.flatnonzero(errors[first : last + 1] > 0)
    return Burst(int(failing[0]), int(failing[-1]), evidence, float(uneven[best]))


def _candidates(seen: Floats, failed: Floats, told: Bools, longest: int) -> _Windows:
    """Return the windows that begin and end with many failures and have nothing told in them."""
    ends = (seen > 0) & (failed >= MIN_SHARE * seen)
    count = len(seen)
    first = np.repeat(np.arange(count), max(longest - LEAST + 1, 0))
    last = first + np.tile(np.arange(LEAST, longest + 1), count) - 1
    first, last = first[last < count], last[last < count]
    gone = np.append(0, np.cumsum(told))
    good = ends[first] & ends[last] & (gone[last + 1] == gone[first])
    return _Windows(first[good], last[good])


def _bad(seen: Floats, failed: Floats, windows: _Windows, limit: Floats) -> Bools:
    """Return whether most pieces of a window have more failures than the limit."""
    length = windows.last - windows.first + 1
    place = np.arange(int(length.max()))
    piece = np.minimum(windows.first[:, None] + place, len(seen) - 1)
    # Nothing fails where nothing was asked.
    bad = (seen[piece] > 0) & (failed[piece] >= limit[:, None] * seen[piece])
    most: Bools = (bad & (place < length[:, None])).sum(axis=1) >= MOST * length
    return most


def _dispersion(inside: Floats, outside: Floats, share: Floats, rest: Floats) -> Floats:
    """Return how many times more pieces vary than independent failures would; 1 at least."""
    with np.errstate(divide="ignore", invalid="ignore"):
        varied = inside[2] - inside[1] * share + outside[2] - outside[1] * rest
        lawful = (inside[3] - 1) * share * (1 - share) + (outside[3] - 1) * rest * (1 - rest)
        ratio = np.where(lawful > 0, varied / lawful, 1.0)
    return np.maximum(ratio, 1.0)


def _dispersion_of_blocks(outside: Floats, rest: Floats) -> Floats:
    """Return the same of blocks outside: of failures that go on from piece to piece it is more."""
    with np.errstate(divide="ignore", invalid="ignore"):
        varied = outside[2] - 2 * rest * outside[1] + rest**2 * outside[0]
        lawful = outside[3] * rest * (1 - rest)
        ratio: Floats = np.where(lawful > 0, varied / lawful, 1.0)
    return ratio
