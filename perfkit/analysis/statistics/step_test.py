"""Whether a step explains a short series better than noise that wanders does.

A short series cannot tell how much it wanders by itself from its differences alone: a step that
stays is in many of them. So the two are put side by side. Noise is taken to be white noise and, in
an unknown share, noise that remembers a share of the bucket before, up to a random walk. The
likelihood of the series with a step in such noise is compared with that without one, each under
the noise that suits it best (a likelihood ratio with generalised least squares for each
covariance: Harvey, Forecasting, Structural Time Series Models and the Kalman Filter, 1989,
chapters 3 and 7). What may as well have wandered there is no step.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from perfkit.analysis.statistics.shift_scan import MIN_POINTS, MIN_RUN, Floats, Run
from perfkit.analysis.vector.forest import Ints

MAX_POINTS = 60
"""Longer series tell of their noise by themselves."""
_MEMORIES = (0.5, 0.8, 0.95, 1.0)
_SHARES = (0.03, 0.1, 0.3, 1.0, 3.0, 30.0)
"""Variance of what is remembered (of a walk's steps), in those of white noise."""
_EXTREMES = 0.1
"""This part of the buckets at either end counts as the next one does: so few make no step."""

_CERTAIN = 11.5
"""What a step explains more than noise, as a logarithm of likelihoods, and 1 more for every
_POINTS buckets: of walks, alone or in white noise, and of a sine, 0 to 0.4 % come to as much, of
noise that remembers nothing hardly any. See the tables in docs/performance.md."""
_PLAIN = 9.0
"""The same where beside the step nothing is remembered: white noise leaves it as likely."""
_AS_LIKELY = 0.5
"""Logarithms of likelihoods less than this apart are as likely as each other (our own choice)."""
_POINTS = 30
_SERIES = 8
"""So many series are looked at together without asking for more."""


class Step(NamedTuple):
    """The window [first, last] of the likeliest step, and by how much it is likelier than none."""

    first: int
    last: int
    gain: float
    """Logarithm of the ratio of likelihoods."""


class Explained(NamedTuple):
    """What a step explains, as logarithms of ratios of likelihoods."""

    gain: float
    """With the step by without it, each under the noise that suits it best."""
    memory: float
    """With the step, under the noise that suits best by under white noise."""


class _Models(NamedTuple):
    """What is known of the covariances, one after the other, before any value is."""

    white: Floats
    """Takes values to independent ones without their mean."""
    half_log_det: Floats
    steps: Floats
    """Whitened steps: column k is 1 up to bucket k."""
    first: Ints
    """The first bucket of each window that may be a step."""
    end: Ints
    """The bucket after its last one."""
    power: Floats
    """Squared length of each whitened window."""


def find_steps(values: Floats, series: int) -> list[Run]:
    """Return the step of a short series without gaps, one of so many, if it surely has one."""
    if not MIN_POINTS <= len(values) <= MAX_POINTS:
        return []
    if np.ptp(without_extremes(values[None, :])) == 0.0:
        return []
    step = likeliest_step(values)
    if not is_sure(values, step.first, step.last, series):
        return []
    inside = np.zeros(len(values), dtype=np.bool_)
    inside[step.first : step.last + 1] = True
    up = bool(np.median(values[inside]) > np.median(values[~inside]))
    return [Run(step.first, step.last, up, math.sqrt(2 * step.gain))]


def is_sure(values: Floats, first: int, last: int, series: int) -> bool:
    """Return whether [first, last] of at most MAX_POINTS values, one of so many series, is a step.

    It must be one with the furthest values and without them, unless it is no longer than what is
    left out as such. More is asked for where the rest remembers.
    """
    kinds = [values]
    if last - first + 1 > _few(len(values)):
        kinds.append(without_extremes(values[None, :])[0])
    found = [explained(one, first, last) for one in kinds]
    plain = max(one.memory for one in found) < _AS_LIKELY
    certain = (_PLAIN if plain else _CERTAIN) + len(values) / _POINTS
    return min(one.gain for one in found) >= certain + math.log(max(series / _SERIES, 1.0))


def explained(values: Floats, first: int, last: int) -> Explained:
    """Return how much a step that lasts from the bucket `first` to `last` explains of a series."""
    if np.ptp(values) == 0.0:
        return Explained(0.0, 0.0)
    half = (len(values) - 1) / 2
    models = _models(len(values))
    free = models.white @ values
    step = models.steps[:, :, last + 1] - models.steps[:, :, first]
    left = (free * free).sum(axis=1)
    explains = (free * step).sum(axis=1) ** 2 / (step * step).sum(axis=1)
    after = np.maximum(left - explains, left * 1e-9)
    plain = -half * np.log(left) - models.half_log_det
    stepped = -half * np.log(after) - models.half_log_det
    best = float(stepped.max())
    return Explained(best - float(plain.max()), best - float(stepped[0]))


def likeliest_step(values: Floats) -> Step:
    """Return the likeliest step of a series without gaps, of at most MAX_POINTS values."""
    return likeliest_steps(values[None, :])[0]


def likeliest_steps(series: Floats) -> list[Step]:
    """Return that of each row."""
    return [_likeliest(row) for row in without_extremes(series)]


def _likeliest(even: Floats) -> Step:
    models = _models(len(even))
    half = (len(even) - 1) / 2
    free = models.white @ even
    left = (free * free).sum(axis=1)
    sums = (free[:, None, :] @ models.steps)[:, 0, :]
    explains = (sums[:, models.end] - sums[:, models.first]) ** 2 / models.power
    at = explains.argmax(axis=1)
    after = np.maximum(left - explains[np.arange(len(at)), at], left * 1e-9)
    with np.errstate(divide="ignore"):
        plain = (-half * np.log(left) - models.half_log_det).max()
        stepped = -half * np.log(after) - models.half_log_det
    best = int(stepped.argmax())
    window = at[best]
    gain = float(stepped[best] - plain) if math.isfinite(plain) else 0.0
    return Step(int(models.first[window]), int(models.end[window]) - 1, gain)


def without_extremes(series: Floats) -> Floats:
    """Return rows of values with the furthest ones as near as those next to them."""
    ordered = np.sort(series, axis=1)
    few = _few(series.shape[1])
    clipped: Floats = np.clip(series, ordered[:, [few]], ordered[:, [-1 - few]])
    return clipped


def _few(count: int) -> int:
    return max(MIN_RUN - 1, round(_EXTREMES * count))


@lru_cache(maxsize=8)
def _models(count: int) -> _Models:
    place = np.arange(count + 1)
    length = place[None, :] - place[:, None]
    # A window and what is outside of it are the same step.
    first, end = np.nonzero((length > _few(count)) & (length <= count // 2))
    each = [_model(covariance) for covariance in covariances(count)]
    whites, log_dets, steps, powers = zip(*each, strict=True)
    power = np.stack([one[first, end] for one in powers])
    return _Models(np.stack(whites), np.array(log_dets), np.stack(steps), first, end, power)


def covariances(count: int) -> list[Floats]:
    """Return those of the kinds of noise that are looked at, white noise first."""
    at = np.arange(count)
    found = [np.eye(count)]
    for memory in _MEMORIES:
        if memory < 1.0:
            remembered = memory ** np.abs(at[:, None] - at[None, :])
        else:
            remembered = np.minimum(at[:, None], at[None, :]) + 1.0
        found += [np.eye(count) + share * remembered for share in _SHARES]
    return found


def _model(covariance: Floats) -> tuple[Floats, float, Floats, Floats]:
    """Return what is known of one; its last part is the power of the window from i to before j."""
    count = len(covariance)
    half = np.linalg.cholesky(covariance)
    white = np.linalg.inv(half)
    level = white @ np.ones(count)
    size = float(level @ level)
    free = white - np.outer(level, level @ white) / size
    steps = np.concatenate([np.zeros((count, 1)), free @ np.triu(np.ones((count, count)))], axis=1)
    gram = steps.T @ steps
    power = np.diag(gram)[:, None] + np.diag(gram)[None, :] - 2 * gram
    half_log_det = float(np.log(np.diag(half)).sum()) + math.log(size) / 2
    return free, half_log_det, steps, np.maximum(power, 1e-12)
