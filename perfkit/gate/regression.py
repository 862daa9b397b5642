"""Is a set of runs slower than a baseline? The run is the unit, never the pooled requests.

Each figure of each endpoint is one number a run. Welch's test on their logarithms says whether the
two sides differ by more than their own noise, which the noise of the same figure of other endpoints
helps to know; the difference must also be larger than a minimum effect. All figures that are tested
are one family: Holm's correction bounds the chance that any of them raises a false alarm. What the
runs cannot settle is unstable, never failed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from perfkit import units
from perfkit.analysis.comparison.differences import MINIMUM_RATIO
from perfkit.analysis.statistics.significance import (
    LEVEL,
    MINIMUM_EFFECT,
    MINIMUM_RUNS,
    NORMAL_MARGIN,
    Change,
    adjusted,
    compare_family,
    compare_runs,
    verdict,
)
from perfkit.gate.figures import MEASURES
from perfkit.gate.result import Check, State

Floats = NDArray[np.float64]
Says = Literal["worse", "better", "no evidence", "unstable"]

DEFAULT_MEASURES = ("p95_ns", "error_ratio")

COARSE = 0.25
"""Runs that would miss a change of a quarter are too few, or too noisy, to say "no change" of a
figure that did change by the minimum effect (our own choice)."""

_POWER = 1 + NormalDist().inv_cdf(0.95) / NORMAL_MARGIN
"""From the half-width of the interval (at `LEVEL`, normal) to the change that is found in 95 of 100
cases."""

_TAILS = ("p95_ns", "p99_ns", "mean_ns")
"""Measures that a few requests that were held up move."""

_FEW_RUNS, _MANY_RUNS = 5, 30
"""Fewer runs a side do not know their noise well; more than so many nobody records (ours)."""

_BEYOND = 10.0
"""A figure that could grow so many times unseen is not known at all (ours)."""
_KEYS = ("kind", "service", "name", "measure")


class Figure(NamedTuple):
    """One figure of one thing in all runs of both sides; NaN where a run does not know it."""

    kind: str
    service: str | None
    name: str
    measure: str
    before: Floats
    after: Floats


class Decision(NamedTuple):
    """What the runs say about a figure."""

    says: Says
    change: Change
    p_adjusted: float
    detectable: float
    """The change that these runs would have found in 95 of 100 cases; NaN where nobody knows."""


def decide(figures: Sequence[Figure], minimum_effect: float = MINIMUM_EFFECT) -> list[Decision]:
    """Return what the runs say about each figure; p-values are corrected for their number.

    A figure that is one and the same number in every run of both sides is not tested: nothing could
    be found there, and the others need not pay for it.
    """
    changes = _changes(figures)
    p = np.array([change.p for change in changes])
    corrected = adjusted(p, "holm")
    return [
        Decision(
            _says(change, own_p, minimum_effect),
            change,
            float(own_p),
            _detectable(change, minimum_effect),
        )
        for change, own_p in zip(changes, corrected, strict=True)
    ]


def _changes(figures: Sequence[Figure]) -> list[Change]:
    found: dict[int, Change] = {}
    for measure in dict.fromkeys(figure.measure for figure in figures):
        places = [place for place, figure in enumerate(figures) if figure.measure == measure]
        pairs = [(figures[place].before, figures[place].after) for place in places]
        if MEASURES[measure].share:
            changes = [compare_runs(*pair, relative=False) for pair in pairs]
        else:
            changes = compare_family(pairs)
        found |= zip(places, changes, strict=True)
    return [_tested(found[place]) for place in range(len(figures))]


def _tested(change: Change) -> Change:
    if change.p == 1.0 and change.change == 0.0 and change.low == change.high == 0.0:
        return change._replace(p=math.nan)
    return change


def _says(change: Change, p: float, minimum_effect: float) -> Says:
    least = minimum_effect if change.relative else MINIMUM_RATIO
    found = verdict(change, p, minimum_effect=least)
    if found == "grew":
        return "worse"
    if found == "shrank":
        return "better"
    # What is too small to matter needs no certainty.
    if not math.isfinite(change.change) or _small(change, least):
        return "no evidence"
    if not math.isfinite(p) or change.p < LEVEL:
        return "unstable"
    noisy = _detectable(change, minimum_effect) > _coarse(change)
    return "unstable" if noisy else "no evidence"


def _coarse(change: Change) -> float:
    return COARSE if change.relative else COARSE / 5


def _small(change: Change, least: float) -> bool:
    if not change.relative:
        return abs(change.change) < least
    return change.change > -1 and abs(math.log1p(change.change)) < math.log1p(least)


def _detectable(change: Change, minimum_effect: float) -> float:
    if not math.isfinite(change.high):
        return math.nan
    if not change.relative:
        return max(MINIMUM_RATIO, _POWER * (change.high - change.change))
    half = math.log1p(change.high) - math.log1p(max(change.change, -1 + 1e-9))
    return max(minimum_effect, math.expm1(min(_POWER * half, 50.0)))


def figures_of(
    before: Sequence[pl.DataFrame], after: Sequence[pl.DataFrame], measures: Iterable[str]
) -> list[Figure]:
    """Return the figures that both sides know.

    Times and errors are compared by endpoint and by tool; resources, which neither has, as a whole.
    """
    wanted = list(measures)
    sides = [_known(side, wanted) for side in (before, after)]
    common = sides[0].keys() & sides[1].keys()
    return [Figure(*key, sides[0][key], sides[1][key]) for key in sides[0] if key in common]


def _known(
    runs: Sequence[pl.DataFrame], measures: Sequence[str]
) -> dict[tuple[str, str | None, str, str], Floats]:
    found: dict[tuple[str, str | None, str, str], Floats] = {}
    whole = {"cpu_cores", "memory_bytes"}
    for number, run in enumerate(runs):
        rows = run.filter(
            pl.col("measure").is_in(list(measures)),
            (pl.col("kind") != "all") | pl.col("measure").is_in(list(whole)),
        )
        for *key, value, requests in rows.select(*_KEYS, "value", "requests").iter_rows():
            if requests >= MEASURES[key[3]].fewest:
                values = found.setdefault(tuple(key), np.full(len(runs), np.nan))
                values[number] = value
    return found


def checks(
    before: Sequence[pl.DataFrame],
    after: Sequence[pl.DataFrame],
    *,
    measures: Iterable[str] = DEFAULT_MEASURES,
    minimum_effect: float = MINIMUM_EFFECT,
    fail_on_improvement: bool = False,
) -> list[Check]:
    """Compare runs with a baseline, each as its table of figures; one check a figure."""
    figures = figures_of(before, after, measures)
    decisions = decide(figures, minimum_effect)
    return [
        _check(figure, decision, fail_on_improvement)
        for figure, decision in zip(figures, decisions, strict=True)
    ]


def _check(figure: Figure, decision: Decision, fail_on_improvement: bool) -> Check:
    states: Mapping[Says, State] = {
        "worse": "failed",
        "better": "failed" if fail_on_improvement else "passed",
        "no evidence": "passed",
        "unstable": "unstable",
    }
    change = decision.change
    seen = [int(np.isfinite(side).sum()) for side in (figure.before, figure.after)]
    label = MEASURES[figure.measure].label
    kind = "tool" if figure.kind == "tool" else figure.service
    thing = " ".join(part for part in (kind, figure.name) if part)
    return Check(
        "regression",
        f"{label} against the baseline",
        thing,
        states[decision.says],
        _sentence(figure, decision, seen, fail_on_improvement),
        measure=figure.measure,
        value=change.after,
        before=change.before,
        change=_finite(change.change),
        low=_finite(change.low),
        high=_finite(change.high),
        relative=change.relative,
        p=_finite(decision.p_adjusted),
        detectable=_finite(decision.detectable),
        runs=seen[1],
        runs_before=seen[0],
        help=_advice(figure.measure, decision, seen, fail_on_improvement),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _sentence(
    figure: Figure, decision: Decision, seen: Sequence[int], fail_on_improvement: bool
) -> str:
    change, write = decision.change, MEASURES[figure.measure].write
    if change.low == change.high == change.change == 0.0:
        return f"{write(change.after)} in every run"
    amount = f"{write(change.before)} → {write(change.after)} ({_amount(change)}"
    if math.isfinite(change.low) and change.low != change.high:
        low, high = (_signed(end, change) for end in (change.low, change.high))
        amount += f"; {100 * (1 - LEVEL):.1f} % interval {low} to {high}"
    amount += f"; {seen[0]} against {seen[1]} runs)"
    if decision.says == "worse":
        return f"{amount}: worse"
    if decision.says == "better":
        return f"{amount}: better" + (
            ", so the baseline should move" if fail_on_improvement else ""
        )
    if decision.says == "unstable":
        if min(seen) < MINIMUM_RUNS:
            return f"{amount}: with one run on a side nobody can tell this from noise"
        if decision.change.p < LEVEL:
            return f"{amount}: likely by itself, but not among so many figures"
        return f"{amount}: too noisy to tell; {_missed(decision)}"
    if decision.detectable > _coarse(change):
        return f"{amount}: hardly differs, but in much noise; {_missed(decision)}"
    if math.isfinite(decision.detectable):
        return f"{amount}: no evidence of change; one of {_found(decision)} would have been found"
    return f"{amount}: no change to be seen"


def _missed(decision: Decision) -> str:
    if decision.change.relative and decision.detectable > _BEYOND:
        return "even a tenfold one would often be missed"
    return f"a change under {_found(decision)} would often be missed"


def _found(decision: Decision) -> str:
    if decision.change.relative:
        return units.percent(decision.detectable)
    return f"{units.number(float(f'{decision.detectable * 100:.3g}'))} points"


def _amount(change: Change) -> str:
    return _signed(change.change, change)


def _signed(value: float, change: Change) -> str:
    if not math.isfinite(value):
        return units.MISSING
    sign = "+" if value > 0 else "−" if value < 0 else "±"
    if change.relative:
        return f"{sign}{units.percent(abs(value))}"
    return f"{sign}{units.number(float(f'{abs(value) * 100:.3g}'))} points"


def _advice(
    measure: str, decision: Decision, seen: Sequence[int], fail_on_improvement: bool
) -> str:
    if decision.says == "worse":
        return "Look for the cause with `perfkit compare BASELINE… vs CAPTURE…`."
    if decision.says == "better" and fail_on_improvement:
        return "Record the baseline anew from this commit."
    if decision.says == "unstable":
        steadier = " Or compare what is steadier: --measure p50." if measure in _TAILS else ""
        return _more_runs(decision, min(seen)) + steadier
    return ""


def _more_runs(decision: Decision, runs: int) -> str:
    """Say how many runs would settle it, at the noise that was seen."""
    if runs < _FEW_RUNS:
        return "Give five runs a side, or more: they find a change of 16 % at 5 % noise."
    coarse = _coarse(decision.change)
    if decision.detectable <= coarse:
        return "Give more runs, or compare fewer figures: --endpoint takes one."
    needed = _needed(decision, runs)
    size = units.percent(coarse) if decision.change.relative else f"{coarse * 100:.0f} points"
    if needed > _MANY_RUNS:
        return (
            f"More runs hardly help: at this noise a change of {size} takes over {_MANY_RUNS} a "
            "side. Record longer runs, on a machine that does nothing else."
        )
    return f"Give more runs: at this noise about {needed} a side find a change of {size}."


def _needed(decision: Decision, runs: int) -> int:
    """Return how many runs a side find a change of `COARSE`: noise shrinks with their root."""
    found, wanted = decision.detectable, _coarse(decision.change)
    if decision.change.relative:
        found, wanted = math.log1p(found), math.log1p(wanted)
    return math.ceil(runs * (found / wanted) ** 2)
