"""The gate: how often its decision is wrong, over runs whose truth is known.

A run is some hundred requests to each of some endpoints, with a long tail. The p95 of each endpoint
differs from run to run by 5 % for no reason: in part because a run draws other requests, the rest
because it has more or less luck. What is judged is the p95 of each endpoint in each run, by the
function that `perfkit check` uses.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from bench.compare import pooled
from bench.measure import Row
from perfkit.gate.regression import Figure, decide

Bools = NDArray[np.bool_]

TRIALS = 10_000
_OF_MANY = 2_000
"""So many where there are twenty endpoints, each of which takes as long."""
_BATCH = 1000
"""The goal is of a thousand comparisons: how many thousands reach it is said too."""
REQUESTS = 400
_NOISE = 0.05
_SPREAD = 0.3
"""Deviation of the logarithm of the requests' lengths: their p95 is 1.6 times their median."""
_DRAWN = _SPREAD * math.sqrt(0.05 * 0.95 / REQUESTS) / NormalDist().pdf(NormalDist().inv_cdf(0.95))
_LUCK = math.sqrt(_NOISE**2 - _DRAWN**2)
"""The relative error of a p95 of so many requests, and what is left of the noise beside it."""


def trial(change: float, endpoints: int, runs: int, random: np.random.Generator) -> list[Figure]:
    """Return the p95 of each endpoint in the runs of two sides; only the first endpoint changes."""
    sides = []
    for side in (0, 1):
        factor = np.ones((runs, endpoints, 1))
        factor[:, 0] += change * side
        factor *= 1 + random.normal(0, _LUCK, factor.shape)
        lengths = np.exp(random.normal(0, _SPREAD, (runs, endpoints, REQUESTS)))
        sides.append(np.quantile(1e8 * factor * lengths, 0.95, axis=2))
    return [
        Figure(
            "endpoint", "app", f"GET /{number}", "p95_ns", sides[0][:, number], sides[1][:, number]
        )
        for number in range(endpoints)
    ]


def alarm_list(endpoints: int, runs: int, trials: int, seed: int = 1) -> Bools:
    """Return for each comparison without change whether any endpoint fails."""
    random = np.random.default_rng(seed)
    return np.array(
        [
            any(one.says == "worse" for one in decide(trial(0.0, endpoints, runs, random)))
            for _ in range(trials)
        ]
    )


def alarms(endpoints: int, runs: int, trials: int = TRIALS, seed: int = 1) -> float:
    """Return the share of comparisons without change in which any endpoint fails."""
    return float(alarm_list(endpoints, runs, trials, seed).mean())


def found(change: float, endpoints: int, runs: int, trials: int = TRIALS, seed: int = 2) -> float:
    """Return the share of comparisons in which the endpoint that changed fails."""
    random = np.random.default_rng(seed)
    failed = 0
    for _ in range(trials):
        failed += decide(trial(change, endpoints, runs, random))[0].says == "worse"
    return failed / trials


def confirmed(change: float, runs: int, trials: int = TRIALS, seed: int = 4) -> float:
    """Return the share that fails with `--confirm`: what is worse or unstable is recorded again."""
    random = np.random.default_rng(seed)
    failed = 0
    for _ in range(trials):
        (first,) = trial(change, 1, runs, random)
        decision = decide([first])[0]
        if decision.says in ("worse", "unstable"):
            (again,) = trial(change, 1, runs, random)
            both = first._replace(after=np.concatenate([first.after, again.after]))
            decision = decide([both])[0]
        failed += decision.says == "worse"
    return failed / trials


def _trials(endpoints: int) -> int:
    return TRIALS if endpoints == 1 else _OF_MANY


def _share(share: float, trials: int = TRIALS) -> str:
    """Return a share with the error that so many trials leave (one standard deviation)."""
    return f"{share:.2%} ± {math.sqrt(share * (1 - share) / trials):.2%}"


def rows() -> list[Row]:
    """Measure false alarms and what is found."""
    naive = pooled(0, 5, 400, 3)
    result = []
    for endpoints, runs in ((1, 5), (1, 10), (20, 5), (20, 10)):
        failed = alarm_list(endpoints, runs, _trials(endpoints))
        share, most = float(failed.mean()), float(failed.reshape(-1, _BATCH).mean(axis=1).max())
        result.append(
            Row(
                f"gate: no change, {endpoints} endpoints, {runs} runs a side: fails",
                f"{_share(share, _trials(endpoints))}; of any 1,000 at most {most:.1%}",
                f"Mann–Whitney over pooled requests {naive:.0%}",
                f"{naive / max(share, 1 / TRIALS):.0f}× fewer",
                "≤ 2 %",
                share <= 0.02,
            )
        )
    for change, endpoints, runs in ((0.16, 1, 5), (0.10, 1, 10), (0.16, 20, 5), (0.10, 20, 10)):
        share = found(change, endpoints, runs, _trials(endpoints))
        result.append(
            Row(
                f"gate: +{change:.0%} in one of {endpoints} endpoints, {runs} runs a side: fails",
                _share(share, _trials(endpoints)),
                "the limit of the design",
                f"{share / 0.95:.2f}×",
                "≥ 95 %" if endpoints == 1 else "as many as the correction leaves",
                share >= 0.95 if endpoints == 1 else None,
            )
        )
    for change, runs, goal in ((0.0, 5, "≤ 2 %"), (0.16, 5, "≥ 95 %")):
        share = confirmed(change, runs)
        result.append(
            Row(
                f"gate: +{change:.0%}, 5 runs a side, --confirm: fails",
                _share(share),
                "without --confirm " + (f"{found(change, 1, runs):.1%}"),
                "–",
                goal if not change else "as without it",
                share <= 0.02 if not change else None,
            )
        )
    return result
