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

from bench.compare import pooled
from bench.measure import Row
from perfkit.gate.regression import Figure, decide

TRIALS = 1000
MANY = 10_000
"""Of one endpoint, which cost little: 1,000 leave a 2 % uncertain by 0.9."""
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


def alarms(endpoints: int, runs: int, trials: int = TRIALS, seed: int = 1) -> float:
    """Return the share of comparisons without change in which any endpoint fails."""
    random = np.random.default_rng(seed)
    failed = 0
    for _ in range(trials):
        decisions = decide(trial(0.0, endpoints, runs, random))
        failed += any(decision.says == "worse" for decision in decisions)
    return failed / trials


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


def rows() -> list[Row]:
    """Measure false alarms and what is found."""
    naive = pooled(0, 5, 400, 3)
    result = []
    for endpoints, runs in ((1, 5), (1, 10), (20, 5), (20, 10)):
        trials = MANY if endpoints == 1 else TRIALS
        share = alarms(endpoints, runs, trials)
        result.append(
            Row(
                f"gate: no change, {endpoints} endpoints, {runs} runs a side: fails",
                f"{share:.1%} of {trials:,}",
                f"Mann–Whitney over pooled requests {naive:.0%}",
                f"{naive / max(share, 1 / trials):.0f}× fewer",
                "≤ 2 %",
                share <= 0.02,
            )
        )
    for change, endpoints, runs in ((0.16, 1, 5), (0.10, 1, 10), (0.16, 20, 5), (0.10, 20, 10)):
        trials = MANY if endpoints == 1 else TRIALS
        share = found(change, endpoints, runs, trials)
        result.append(
            Row(
                f"gate: +{change:.0%} in one of {endpoints} endpoints, {runs} runs a side: fails",
                f"{share:.1%} of {trials:,}",
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
                f"{share:.1%}",
                "without --confirm " + (f"{found(change, 1, runs):.1%}"),
                "–",
                goal if not change else "as without it",
                share <= 0.02 if not change else None,
            )
        )
    return result
