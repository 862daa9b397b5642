"""The gate's own decision: how often it is wrong, over generated runs whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from bench.gate import alarms, confirmed, found, trial
from perfkit.gate import regression
from perfkit.gate.regression import Figure, decide


def figure(before: list[float], after: list[float], measure: str = "p95_ns") -> Figure:
    return Figure("endpoint", "app", "GET /a", measure, np.array(before), np.array(after))


def one(before: list[float], after: list[float], measure: str = "p95_ns") -> regression.Decision:
    return decide([figure(before, after, measure)])[0]


def test_a_clear_slow_down_and_a_clear_gain() -> None:
    quick, slow = [100.0, 101, 99, 100, 102], [120.0, 121, 119, 122, 120]
    assert one(quick, slow).says == "worse"
    assert one(slow, quick).says == "better"
    assert one(quick, [value + 1 for value in quick]).says == "no evidence"


def test_sure_but_small_is_no_change() -> None:
    decision = one([100.0, 100.1, 99.9, 100], [103.0, 103.1, 102.9, 103])
    assert decision.p_adjusted < 1e-6
    assert decision.says == "no evidence"


def test_one_run_a_side_tells_nothing_for_sure() -> None:
    assert one([100.0], [200.0]).says == "unstable"
    assert one([100.0], [101.0]).says == "no evidence"
    assert math.isnan(one([100.0], [200.0]).detectable)


def test_runs_that_scatter_are_unstable_not_failed() -> None:
    decision = one([100.0, 180], [150.0, 240])
    assert decision.says == "unstable"
    assert decision.detectable > regression.COARSE


def words(before: list[float], after: list[float]) -> tuple[str, str]:
    sides = []
    for side in (before, after):
        rows = [("endpoint", "app", "GET /a", "p95_ns", value, 100) for value in side]
        sides.append([pl.DataFrame([r], schema=regression_schema(), orient="row") for r in rows])
    (check,) = regression.checks(*sides, measures=["p95_ns"])
    return check.message, check.help


def test_advice_to_give_more_runs_is_of_the_noise_that_was_seen() -> None:
    message, advice = words([100e6, 122e6, 90e6, 112e6, 85e6], [112e6, 125e6, 95e6, 135e6, 98e6])
    assert "too noisy to tell" in message
    assert "Give more runs: at this noise about 19 a side find a change of 25 %." in advice
    luck = np.random.default_rng(3)
    level = np.array([[0.0], [math.log(1.25)]])
    trials = [np.exp(level + luck.normal(0, 0.15, (2, 19))).tolist() for _ in range(200)]
    assert sum(one(*trial).says == "worse" for trial in trials) >= 190
    _, advice = words([100e6, 300e6, 60e6, 180e6, 80e6], [120e6, 350e6, 70e6, 200e6, 95e6])
    assert "More runs hardly help: at this noise a change of 25 % takes over 30 a side." in advice
    _, advice = words([100e6, 180e6], [150e6, 240e6])
    assert "Give five runs a side" in advice


def test_what_hardly_differs_in_much_noise_is_not_told_as_found_out() -> None:
    message, _ = words([100e6, 300e6, 60e6, 180e6, 80e6], [103e6, 310e6, 60e6, 180e6, 80e6])
    assert "hardly differs, but in much noise" in message
    assert "would have been found" not in message
    message, _ = words([100e6, 101e6, 99e6, 100e6, 102e6], [101e6, 102e6, 100e6, 101e6, 103e6])
    assert "one of 5 % would have been found" in message


def test_what_only_the_correction_takes_away_is_unstable() -> None:
    suspicious = figure([100.0, 104, 97, 101, 99], [106.0, 108, 104, 112, 107])
    alone = decide([suspicious])[0]
    assert alone.says == "worse"
    others = [figure([100.0, 107, 95, 101, 97], [100.0, 94, 104, 107, 97]) for _ in range(60)]
    assert decide([suspicious, *others])[0].says == "unstable"


def test_the_noise_of_the_others_makes_one_figure_surer_but_each_measure_has_its_own() -> None:
    shift = figure([100.0, 104, 97, 101, 99], [106.0, 108, 104, 112, 107])
    quiet = [figure([100.0, 101, 99, 100, 102], [100.0, 102, 99, 101, 100 + n]) for n in range(6)]
    loud = [figure([100.0, 140, 70, 120, 90], [100.0, 70, 150, 120, 91 + n]) for n in range(6)]
    own = decide([shift])[0].change
    assert decide([shift, *quiet])[0].change.p < own.p < decide([shift, *loud])[0].change.p
    other_measure = [one._replace(measure="p50_ns") for one in quiet]
    assert decide([shift, *other_measure])[0].change == own


def test_a_figure_that_is_one_number_everywhere_costs_the_others_nothing() -> None:
    shift = figure([100.0, 104, 97, 101, 99], [112.0, 118, 114, 112, 117])
    still = figure([0.0] * 5, [0.0] * 5, "error_ratio")
    assert decide([shift])[0].p_adjusted == decide([shift, *[still] * 50])[0].p_adjusted
    assert decide([still])[0].says == "no evidence"


def test_errors_are_compared_in_points() -> None:
    assert one([0.0, 0, 0.01, 0], [0.1, 0.12, 0.09, 0.11], "error_ratio").says == "worse"
    assert one([0.0, 0, 0, 0], [0.001, 0.002, 0.001, 0.001], "error_ratio").says == "no evidence"


def test_only_endpoints_with_enough_requests_are_compared() -> None:
    def run(p95: float, requests: int) -> pl.DataFrame:
        row = ("endpoint", "app", "GET /a", "p95_ns", p95, requests)
        return pl.DataFrame([row], schema=regression_schema(), orient="row")

    assert len(regression.figures_of([run(1, 20)], [run(2, 20)], ["p95_ns"])) == 1
    assert regression.figures_of([run(1, 19)], [run(2, 20)], ["p95_ns"]) == []


def regression_schema() -> dict[str, pl.DataType]:
    from perfkit.gate.figures import SCHEMA

    return SCHEMA


@pytest.mark.slow
@pytest.mark.parametrize(("endpoints", "trials"), [(1, 1000), (20, 250)])
def test_false_alarms_without_change(endpoints: int, trials: int) -> None:
    # `python -m bench gate` runs ten times as many.
    assert alarms(endpoints, runs=5, trials=trials, seed=7) <= 0.02


@pytest.mark.slow
def test_real_changes_are_found() -> None:
    assert found(0.10, endpoints=1, runs=10, trials=1000, seed=8) >= 0.95
    assert found(0.16, endpoints=1, runs=5, trials=1000, seed=9) >= 0.95


@pytest.mark.slow
def test_one_changed_endpoint_among_twenty_is_found() -> None:
    # Each by its own noise alone: 47 and 70 of 100.
    assert found(0.16, endpoints=20, runs=5, trials=100, seed=13) >= 0.65
    assert found(0.10, endpoints=20, runs=10, trials=100, seed=14) >= 0.70


def test_two_runs_that_agree_by_chance_raise_no_alarm() -> None:
    # Welch's test alone calls 6 of 100 worse, and any of 20 in 16.
    random = np.random.default_rng(15)
    for figures in (1, 20):
        alarms = 0
        for _ in range(200):
            noise = [random.normal(0, 0.05, (figures, runs)) for runs in (10, 2)]
            sides = [100 * np.exp(one) for one in noise]
            pairs = [
                figure(list(before), list(after)) for before, after in zip(*sides, strict=True)
            ]
            alarms += any(one.says == "worse" for one in decide(pairs))
        assert alarms <= 6


def test_confirming_makes_false_alarms_no_more_frequent() -> None:
    assert confirmed(0.0, 5, trials=1000, seed=11) <= 0.02
    assert confirmed(0.25, 5, trials=200, seed=12) >= 0.95


def test_the_noise_of_a_trial_is_five_per_cent_from_run_to_run() -> None:
    figures = trial(0.0, 50, 40, np.random.default_rng(3))
    noise = [figure.before.std(ddof=1) / figure.before.mean() for figure in figures]
    assert 0.047 < np.mean(noise) < 0.053


def test_a_trial_is_of_percentiles_of_generated_requests() -> None:
    figures = trial(0.5, 3, 5, np.random.default_rng(1))
    assert len(figures) == 3
    grown = figures[0].after.mean() / figures[0].before.mean()
    assert 1.3 < grown < 1.7
    assert 0.8 < figures[1].after.mean() / figures[1].before.mean() < 1.2
