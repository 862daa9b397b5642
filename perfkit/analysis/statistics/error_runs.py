"""Runs of buckets in which another share of requests failed than in the rest, and surely so.

The evidence of a run is the logarithm of the ratio of likelihoods of two shares and of one, divided
by the dispersion: by how many times more pieces of either side vary than independent failures
would, as in `bursts`. Pieces are buckets, and two, four and eight of them in a row, as failures in
rows may be cut into several. The dispersion is known from no more pieces than have failures; hence
the logarithm of Student's t. Failures of one moment are one event: they say nothing of how uneven
failures are, and so no run is made of them alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from perfkit.analysis.statistics.bursts import LEAST
from perfkit.analysis.statistics.shift_scan import Floats, Run
from perfkit.analysis.vector.forest import Bools, Ints

CERTAIN = 14.0
"""Evidence that a run needs in _BUCKETS buckets of one series (our own choice)."""
_BUCKETS = 60
_WORTH = 6.0
"""Runs of as much evidence are no measure of others: several would hide each other."""
_MAX_RUNS = 10
_KNOWN = 10
"""By so many buckets with failures, and one more, it is reckoned at least how even failures are."""
_PIECES = (1, 2, 4, 8)


class _Sums(NamedTuple):
    """Requests and failures up to each bucket, from the first."""

    requests: Floats
    errors: Floats


def find_error_runs(requests: Floats, errors: Floats, series: int) -> list[Run]:
    """Return the runs of a series of buckets without gaps, in order of time.

    `series` is how many series are looked at together. The score of a run is as many standard
    deviations as its evidence is worth.
    """
    certain = CERTAIN + math.log(max(len(requests) / _BUCKETS, 1.0) * series)
    told = np.zeros(len(requests), dtype=np.bool_)
    worth: list[tuple[int, int]] = []
    while len(worth) < _MAX_RUNS:
        window = likeliest(requests, errors, told)
        if window is None or evidence(requests, errors, told, *window) < _WORTH:
            break
        told[window[0] : window[1] + 1] = True
        worth.append(window)
    if told.all():
        return []
    usual = errors[~told].sum() / max(requests[~told].sum(), 1e-9)
    runs = []
    for first, last in worth:
        others = told.copy()
        others[first : last + 1] = False
        sure = evidence(requests, errors, others, first, last)
        if sure >= certain:
            share = errors[first : last + 1].sum() / requests[first : last + 1].sum()
            runs.append(Run(first, last, bool(share > usual), math.sqrt(2 * sure)))
    return sorted(runs)


def likeliest(requests: Floats, errors: Floats, told: Bools) -> tuple[int, int] | None:
    """Return the run, of half of what is left at most, whose two shares are likeliest.

    Nothing of it is told already. Its edges are looked for among all buckets once its length is
    known to within a third.
    """
    left = int((~told).sum())
    if left < 2 * LEAST:
        return None
    seen, failed = np.where(told, 0.0, requests), np.where(told, 0.0, errors)
    sums = _Sums(_running(seen), _running(failed))
    gone = np.append(0, np.cumsum(told))
    best, where = 0.0, None
    for size in _lengths(left // 2):
        begin = np.arange(len(requests) - size + 1)
        best, where = _better(sums, gone, begin, begin + size - 1, best, where)
    if where is None:
        return None
    reach = (where[1] - where[0] + 1) // 3 + 1
    first, last = (edge.ravel() for edge in np.meshgrid(*(_near(edge, reach) for edge in where)))
    length = last - first + 1
    inside = (first >= 0) & (last < len(requests)) & (length >= LEAST) & (length <= left // 2)
    return _better(sums, gone, first[inside], last[inside], best, where)[1]


def _lengths(most: int) -> Iterator[int]:
    """Return lengths of windows that are looked at, at most a third or one longer than another."""
    length = LEAST
    while length <= most:
        yield length
        length = max(length + 1, length * 4 // 3)


def _near(edge: int, reach: int) -> Ints:
    return np.arange(edge - reach, edge + reach + 1)


def _running(values: Floats) -> Floats:
    return np.append(0.0, np.cumsum(values))


def _better(
    sums: _Sums, gone: Ints, first: Ints, last: Ints, best: float, where: tuple[int, int] | None
) -> tuple[float, tuple[int, int] | None]:
    """Return the likeliest of these windows, if it is likelier than the one given."""
    free = gone[last + 1] == gone[first]
    if not free.any():
        return best, where
    first, last = first[free], last[free]
    gains = gain(
        sums.requests[last + 1] - sums.requests[first],
        sums.errors[last + 1] - sums.errors[first],
        float(sums.requests[-1]),
        float(sums.errors[-1]),
    )
    at = int(np.argmax(gains))
    if gains[at] > best:
        return float(gains[at]), (int(first[at]), int(last[at]))
    return best, where


def gain(inside: Floats, failed: Floats, requests: float, errors: float) -> Floats:
    """Return the logarithm of the ratio of likelihoods: two shares, inside and outside, by one."""
    parts = (inside, failed), (requests - inside, errors - failed)
    apart: Floats = sum((_likelihood(seen, lost) for seen, lost in parts), np.zeros(len(inside)))
    apart -= _likelihood(np.array([requests]), np.array([errors]))
    return apart


def _likelihood(requests: Floats, errors: Floats) -> Floats:
    found: Floats = _times_log(errors, requests) + _times_log(requests - errors, requests)
    return found


def _times_log(part: Floats, whole: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = np.where(part > 0, part * np.log(part / whole), 0.0)
    return found


def evidence(requests: Floats, errors: Floats, without: Bools, first: int, last: int) -> float:
    """Return how sure it is that the buckets [first, last] have another share than the rest.

    What is in `without` belongs to neither.
    """
    inside = np.zeros(len(requests), dtype=np.bool_)
    inside[first : last + 1] = True
    sides = [one for one in (inside, ~inside & ~without) if requests[one].sum() > 0]
    if len(sides) < 2:
        return 0.0
    seen, lost = ([float(what[one].sum()) for one in sides] for what in (requests, errors))
    likelier = gain(np.array(seen[:1]), np.array(lost[:1]), sum(seen), sum(lost))
    uneven = max(_dispersion(requests, errors, sides, length) for length in _PIECES)
    known = max(int(np.count_nonzero(errors[~without] > 0)) - 1, _KNOWN)
    return known / 2 * math.log1p(2 * float(likelier[0]) / max(uneven, 1.0) / known)


def _dispersion(requests: Floats, errors: Floats, sides: list[Bools], length: int) -> float:
    """Return how many times more pieces of sides vary than independent failures would."""
    varied, lawful = 0.0, 0.0
    one = np.ones(length)
    for side in sides:
        share = errors[side].sum() / requests[side].sum()
        whole = np.convolve(side, one, "valid") >= length
        seen = np.convolve(requests, one, "valid")[whole]
        lost = np.convolve(errors, one, "valid")[whole][seen > 0]
        seen = seen[seen > 0]
        if len(seen) < 2:
            continue
        varied += float(((lost - share * seen) ** 2 / seen).sum())
        # The share is known from these pieces; of those that overlap so many are one.
        lawful += max(len(seen) - length, 1) * float(share * (1 - share))
    return varied / lawful if lawful > 0 else 1.0
