"""Bursts of failures are found and told exactly, and failures in batches are none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.analysis.statistics import bursts
from perfkit.analysis.statistics.bursts import Burst, find_bursts
from perfkit.rules import evaluate, load
from tests.analysis.build import S, analyse

SECOND_NS = 10**9


def variance_ratio(blocks: list[tuple[float, float]], share: float) -> tuple[float, float]:
    """Return how much blocks of (requests, failures) vary about a share, and how much they may."""
    seen = [(asked, failed) for asked, failed in blocks if asked]
    varied = sum((failed - asked * share) ** 2 / asked for asked, failed in seen)
    return varied, len(seen) * share * (1 - share)


def slow_first_burst(requests: list[float], errors: list[float]) -> tuple[float, int, int] | None:
    """Return evidence, first and last bucket of the surest window, each judged by itself."""
    count, size, best = len(requests), 1, None
    while count >= 8 * size:
        coarsest = count < 32 * size
        pieces = [
            (sum(requests[at : at + size]), sum(errors[at : at + size]))
            for at in range(0, count, size)
        ]
        longest = len(pieces) // 2 if coarsest else 15
        for first in range(len(pieces)):
            for last in range(first + 3, min(first + longest, len(pieces))):
                evidence = slow_evidence(pieces, first, last)
                if evidence is not None and (best is None or evidence > best[0] + 1e-9):
                    begin, end = first * size, min((last + 1) * size, count)
                    failing = [at for at in range(begin, end) if errors[at]]
                    best = (evidence, failing[0], failing[-1])
        if coarsest:
            break
        size *= 2
    return best


def slow_evidence(pieces: list[tuple[float, float]], first: int, last: int) -> float | None:
    window = pieces[first : last + 1]
    apart = [at for at in range(len(pieces)) if at < first - 1 or at > last + 1]
    rest = [pieces[at] for at in apart]
    asked, failed = (sum(column) for column in zip(*window, strict=True))
    if not rest or sum(one for one, _ in rest) == 0 or asked < 20:
        return None
    share, low = failed / asked, sum(one for _, one in rest) / sum(one for one, _ in rest)
    usual = max(low, 0.005)
    bad = [bool(n) and e >= max(0.05, 3 * usual) * n for n, e in window]
    ends = all(n and e >= 0.05 * n for n, e in (window[0], window[-1]))
    if not ends or sum(bad) < 0.75 * len(bad) or share < max(0.05, 3 * usual):
        return None
    inside, outside = variance_ratio(window, share), variance_ratio(rest, low)
    # Each side's share is its own mean, which takes one piece.
    may = inside[1] - share * (1 - share) + outside[1] - low * (1 - low)
    uneven = [1.0, (inside[0] + outside[0]) / may if may > 0 else 1.0]
    for length in (2, 4):
        blocks = [
            tuple(sum(column) for column in zip(*pieces[at : at + length], strict=True))
            for at in range(len(pieces) - length + 1)
            if at + length - 1 < first - 1 or at > last + 1
        ]
        varied, lawful = variance_ratio(blocks, low)
        uneven.append(varied / lawful if lawful > 0 else 1.0)
    gain = (failed * math.log(share / usual) - failed + asked * usual) / max(uneven)
    known = max(sum(e > 0 for _, e in pieces) - 1, 10)
    return known / 2 * math.log(1 + 2 * gain / known)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(8, 70), st.floats(0, 0.3), st.integers(0, 20))
def test_the_surest_window_is_that_of_trying_all(
    seed: int, count: int, usual: float, length: int
) -> None:
    random = np.random.default_rng(seed)
    requests = random.poisson(random.choice([0.5, 5, 40]), count).astype(np.float64)
    chance = np.full(count, usual)
    begin = int(random.integers(0, count))
    chance[begin : begin + length] = random.random()
    errors = random.binomial(requests.astype(np.int64), chance).astype(np.float64)
    expected = slow_first_burst(list(requests), list(errors))
    found = bursts.surest(requests, errors)
    assert (found is None) == (expected is None)
    if found and expected:
        assert found.evidence == pytest.approx(expected[0])
        told = find_bursts(requests, errors)
        certain = bursts.CERTAIN + math.log(max(count / 60, 1))
        assert bool(told) == (found.evidence >= certain)
        assert not told or told[0] == found


def minute(failing: dict[int, int], seconds: int = 60, requests: int = 30) -> list[Burst]:
    errors = np.zeros(seconds)
    for at, count in failing.items():
        errors[at] = count
    return find_bursts(np.full(seconds, float(requests)), errors)


def test_two_outages_are_two_bursts() -> None:
    first, second = dict.fromkeys(range(100, 110), 12), dict.fromkeys(range(400, 412), 12)
    found = minute(first | second, 600)
    assert sorted((one.first, one.last) for one in found) == [(100, 109), (400, 411)]


def test_an_outage_of_a_minute_in_an_hour_is_found_to_the_bucket() -> None:
    (found,) = minute(dict.fromkeys(range(300, 310), 20), 600, 60)
    assert (found.first, found.last) == (300, 309)


def test_a_burst_of_seconds_is_found_where_nothing_else_fails() -> None:
    (found,) = minute(dict.fromkeys(range(30, 36), 9))
    assert (found.first, found.last) == (30, 35)


def test_failures_of_one_moment_are_one_event() -> None:
    assert minute({30: 30, 31: 30, 32: 30}) == []


def test_failures_in_batches_are_no_burst() -> None:
    random = np.random.default_rng(20261130)
    told = 0
    for _ in range(50):
        failed = np.zeros(1800)
        for first in random.integers(0, 1800, random.poisson(6)):
            failed[first : first + random.geometric(1 / 8)] = 1
        told += bool(find_bursts(np.full(60, 30.0), failed.reshape(60, 30).sum(axis=1)))
    assert told == 0


def test_one_failure_that_stands_for_ten_is_no_ten() -> None:
    errors = np.zeros(60)
    errors[30:38] = 10.0
    assert find_bursts(np.full(60, 30.0), errors)
    assert find_bursts(np.full(60, 30.0), errors, weight=10.0) == []


def spans(failing: range) -> list[S]:
    """Return two endpoints for a minute, ten requests a second each, of which one fails a while."""
    start_ns = 1_700_000_000 * SECOND_NS
    return [
        S(
            2 * at + pay + 1,
            start_ns + at * SECOND_NS // 10,
            start_ns + at * SECOND_NS // 10 + 10**6,
            trace=2 * at + pay + 1,
            kind="server",
            endpoint="POST /pay" if pay else "GET /cart",
            status="error" if pay and at // 10 in failing and at % 3 else "ok",
        )
        for at in range(600)
        for pay in (0, 1)
    ]


def test_a_burst_is_told_with_when_how_long_how_much_and_what() -> None:
    tables = analyse(spans(range(20, 30)))
    (burst,) = tables.frame("error_bursts").iter_rows(named=True)
    assert burst["start_ns"] == 1_700_000_020 * SECOND_NS
    assert burst["duration_ns"] == 10 * SECOND_NS
    assert (burst["requests"], burst["errors"]) == (200, 67)
    assert burst["usual_ratio"] == 0
    assert (burst["worst_endpoint"], burst["worst_errors"]) == ("POST /pay", 67)
    rules = [rule for rule in load.load_rules() if rule.id == "errors.spike"]
    (outcome,) = evaluate.run(rules, tables)
    (finding,) = outcome.findings
    assert finding.severity == "high"
    assert "for 10 s, 67 of 200 requests failed, 34 %" in finding.message
    assert "67 of the failures were of POST /pay" in finding.message


def test_no_failure_is_no_burst() -> None:
    tables = analyse(spans(range(0)))
    assert tables.frame("error_bursts").is_empty()
    rules = [rule for rule in load.load_rules() if rule.id == "errors.spike"]
    assert [outcome.state for outcome in evaluate.run(rules, tables)] == ["quiet"]
