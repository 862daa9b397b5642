"""Where in a history a figure changed for good: change points, and the commits around them.

PELT (Killick, Fearnhead and Eckley 2012, JASA 107; by the library ruptures) says where the
logarithm of a figure may have changed its level. Whether it did is asked of the gate's own test,
between the runs before and after; its p is multiplied by the number of places and of figures that
were looked at (Bonferroni), because the place was chosen for being the best of all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from perfkit.analysis.comparison.differences import MINIMUM_RATIO
from perfkit.analysis.statistics.significance import MINIMUM_EFFECT, compare_runs, verdict
from perfkit.errors import UsageError
from perfkit.gate.figures import MEASURES
from perfkit.gate.runs import Run

Floats = NDArray[np.float64]

FEWEST_RUNS = 6
"""A change point needs three runs on each side: fewer say nothing about their own noise."""
_SIDE = 3
_NORMAL_MAD = 1.4826
_KEYS = ("kind", "service", "name", "measure")


class Series(NamedTuple):
    """A figure over the runs that know it: `values[i]` is of `runs[i]`, the oldest first."""

    kind: str
    service: str | None
    name: str
    measure: str
    runs: list[Run]
    values: Floats


class Shift(NamedTuple):
    """A change for good: between `good` and `bad`, the last run before it and the first after."""

    series: Series
    place: int
    before: float
    after: float
    change: float
    relative: bool
    p: float

    @property
    def good(self) -> Run:
        """The last run before the change."""
        return self.series.runs[self.place - 1]

    @property
    def bad(self) -> Run:
        """The first run after it."""
        return self.series.runs[self.place]

    @property
    def worse(self) -> bool:
        """Whether the figure got worse: it grew, or, of a rate, shrank."""
        return (self.change > 0) != (self.series.measure == "rate_per_s")


def series(runs: Sequence[Run], measures: Iterable[str]) -> list[Series]:
    """Return the figures of a history that enough runs know."""
    wanted = list(measures)
    found: dict[tuple[str, str | None, str, str], tuple[list[Run], list[float]]] = {}
    for run in runs:
        rows = run.figures.filter(pl.col("measure").is_in(wanted))
        for *key, value, requests in rows.select(*_KEYS, "value", "requests").iter_rows():
            if requests >= MEASURES[key[3]].fewest:
                of, values = found.setdefault(tuple(key), ([], []))
                of.append(run)
                values.append(value)
    return [
        Series(*key, of, np.array(values))
        for key, (of, values) in sorted(found.items(), key=lambda item: str(item[0]))
        if len(values) >= FEWEST_RUNS
    ]


def shifts(all_series: Sequence[Series], minimum_effect: float = MINIMUM_EFFECT) -> list[Shift]:
    """Return the changes for good, the surest first."""
    found = [shift for one in all_series for shift in _of(one, len(all_series), minimum_effect)]
    return sorted(found, key=lambda shift: shift.p)


def _of(one: Series, family: int, minimum_effect: float) -> list[Shift]:
    share = MEASURES[one.measure].share
    places = _candidates(one.values, logarithmic=not share)
    bounds = [0, *places, len(one.values)]
    looked = (len(one.values) - 2 * _SIDE + 1) * family
    found = []
    for start, place, end in zip(bounds, bounds[1:], bounds[2:], strict=False):
        change = compare_runs(one.values[start:place], one.values[place:end], relative=not share)
        p = min(1.0, change.p * looked)
        least = minimum_effect if change.relative else MINIMUM_RATIO
        if verdict(change, p, minimum_effect=least) in ("grew", "shrank"):
            found.append(
                Shift(one, place, change.before, change.after, change.change, change.relative, p)
            )
    return found


def _candidates(values: Floats, *, logarithmic: bool) -> list[int]:
    """Return where the level may have changed: indices of the first runs after it."""
    try:
        import ruptures
    except ImportError as error:
        raise UsageError(
            "finding change points needs a library that is not installed",
            hint="pip install 'perfkit[history]'",
        ) from error
    signal = np.log(values) if logarithmic and values.min() > 0 else values
    # The noise, from neighbours: a change of the level hardly touches it.
    steps = np.diff(signal)
    noise = _NORMAL_MAD * float(np.median(np.abs(steps - np.median(steps)))) / math.sqrt(2)
    scale = max(noise, 1e-9 * max(1.0, float(np.abs(signal).max())))
    penalty = 3 * math.log(len(signal))
    model = ruptures.Pelt(model="l2", min_size=_SIDE, jump=1).fit(signal / scale)
    return [int(place) for place in model.predict(pen=penalty)[:-1]]
