"""Another share of failures is told where one was planted, and not of failures in rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.statistics.bursts import LEAST
from perfkit.analysis.statistics.error_runs import evidence, find_error_runs, likeliest
from perfkit.analysis.statistics.shift_scan import Floats

Rng = np.random.Generator
PER_BUCKET = 30


def slow_likelihood(requests: float, errors: float) -> float:
    parts = (errors, requests - errors)
    return sum(part * math.log(part / requests) for part in parts if part > 0)


def slow_gain(requests: list[float], errors: list[float], inside: set[int], out: set[int]) -> float:
    sides = [(sum(requests[at] for at in s), sum(errors[at] for at in s)) for s in (inside, out)]
    whole = sum(side[0] for side in sides), sum(side[1] for side in sides)
    return sum(slow_likelihood(*side) for side in sides) - slow_likelihood(*whole)


def slow_evidence(
    requests: list[float], errors: list[float], without: set[int], first: int, last: int
) -> float:
    inside = set(range(first, last + 1))
    out = set(range(len(requests))) - inside - without
    gain = slow_gain(requests, errors, inside, out)
    uneven = 1.0
    for length in (1, 2, 4, 8):
        varied = lawful = 0.0
        for side in (inside, out):
            share = sum(errors[at] for at in side) / sum(requests[at] for at in side)
            squares = []
            for begin in range(len(requests) - length + 1):
                piece = set(range(begin, begin + length))
                seen = sum(requests[at] for at in piece)
                if piece <= side and seen:
                    lost = sum(errors[at] for at in piece)
                    squares.append((lost - share * seen) ** 2 / seen)
            if len(squares) >= 2:
                varied += sum(squares)
                lawful += max(len(squares) - length, 1) * share * (1 - share)
        if lawful > 0:
            uneven = max(uneven, varied / lawful)
    failing = sum(errors[at] > 0 for at in range(len(requests)) if at not in without)
    known = max(failing - 1, 10)
    return known / 2 * math.log1p(2 * gain / uneven / known)


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=12, max_size=20),
    st.integers(0, 5),
    st.integers(4, 6),
)
def test_evidence_is_that_of_loops(pairs: list[tuple[int, int]], first: int, length: int) -> None:
    requests = [float(seen) for seen, _ in pairs]
    errors = [float(min(seen, lost)) for seen, lost in pairs]
    last = first + length - 1
    without = {len(requests) - 1}
    told = np.array([at in without for at in range(len(requests))])
    found = evidence(np.array(requests), np.array(errors), told, first, last)
    assert found == pytest.approx(slow_evidence(requests, errors, without, first, last), abs=1e-6)


@given(st.lists(st.integers(0, 9), min_size=2 * LEAST, max_size=22))
def test_no_window_of_a_short_series_is_likelier(lost: list[int]) -> None:
    count = len(lost)
    requests, errors = [9.0] * count, [float(one) for one in lost]
    everything = set(range(count))

    def gain(first: int, last: int) -> float:
        inside = set(range(first, last + 1))
        return slow_gain(requests, errors, inside, everything - inside)

    # The shortest lengths are all looked at.
    longest = min(count // 2, 6)
    best = max(
        gain(first, first + length - 1)
        for length in range(LEAST, longest + 1)
        for first in range(count - length + 1)
    )
    window = likeliest(np.array(requests), np.array(errors), np.zeros(count, dtype=np.bool_))
    assert (gain(*window) if window else 0.0) >= best - 1e-6


def counts(rng: Rng, share: Floats) -> tuple[Floats, Floats]:
    requests = rng.poisson(PER_BUCKET, len(share)).astype(np.float64)
    return requests, rng.binomial(requests.astype(np.int64), share).astype(np.float64)


def rows(rng: Rng, size: float, each: float) -> tuple[Floats, Floats]:
    """Return a minute of failures in rows of so many, every so many seconds."""
    failed = np.zeros(60 * PER_BUCKET)
    for first in rng.integers(0, len(failed), rng.poisson(60 / each)):
        failed[first : first + rng.geometric(1 / size)] = 1.0
    return np.full(60, float(PER_BUCKET)), failed.reshape(60, PER_BUCKET).sum(axis=1)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "each"), [(1.0, 1.0), (3.0, 3.0), (8.0, 10.0), (20.0, 20.0)])
def test_failures_in_rows_are_no_change(size: float, each: float) -> None:
    rng = np.random.default_rng(int(size))
    assert sum(bool(find_error_runs(*rows(rng, size, each), 1)) for _ in range(300)) == 0


@pytest.mark.parametrize(
    ("usual", "share", "first", "least"),
    [(0.05, 0.3, 30, 0.7), (0.005, 0.5, 40, 0.95), (0.3, 0.05, 35, 0.7), (0.0, 1.0, 54, 1.0)],
)
def test_another_share_is_found_where_it_begins(
    usual: float, share: float, first: int, least: float
) -> None:
    rng = np.random.default_rng(7)
    found = 0
    for _ in range(40):
        runs = find_error_runs(*counts(rng, np.where(np.arange(60) < first, usual, share)), 1)
        found += len(runs) == 1
        for run in runs:
            # The shorter side is the one that stands out.
            assert min(abs(run.first - first), abs(run.last + 1 - first)) <= 3
            assert run.up == ((share > usual) == (run.first > 0))
    assert found >= least * 40


def test_two_bursts_do_not_hide_each_other() -> None:
    share = np.full(300, 0.01)
    share[50:80] = share[200:240] = 0.4
    runs = find_error_runs(*counts(np.random.default_rng(3), share), 1)
    assert [run.up for run in runs] == [True, True]
    for run, (first, last) in zip(runs, ((50, 79), (200, 239)), strict=True):
        assert abs(run.first - first) <= 2
        assert abs(run.last - last) <= 2


@pytest.mark.parametrize("errors", [np.zeros(60), np.full(60, 30.0), np.eye(60)[30] * 30])
def test_what_never_changes_and_a_single_bucket_have_no_runs(errors: Floats) -> None:
    assert find_error_runs(np.full(60, 30.0), errors, 1) == []
    assert find_error_runs(np.zeros(60), np.zeros(60), 1) == []
    assert find_error_runs(np.ones(5), np.ones(5), 1) == []
