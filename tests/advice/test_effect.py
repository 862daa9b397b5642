"""What a recommendation brought: against a plain count, and where the truth is known."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.advice import effect
from perfkit.advice.entry import Before, Entry, Measured
from perfkit.rules.fixed import FixedTables
from perfkit.rules.load import load_rules
from perfkit.rules.model import Outcome
from tests.advice.findings import finding

MS = 10**6
RULE = next(rule for rule in load_rules() if rule.id == "db.slow-query")
QUIET = {RULE.id: Outcome(RULE, "quiet")}
ENTRY = Entry(
    "00000000000000aa", RULE.id, "Make it faster", "done", "ann", 0, predicted_ns=(20 * MS, 50 * MS)
)


def requests(*rows: tuple[str, int, float], weight: float = 1.0, tool: str | None = None) -> Any:
    """Return entries (endpoint, start in s, ms)."""
    return FixedTables(
        {
            "requests": [
                {
                    "entry": True,
                    "open": False,
                    "endpoint": endpoint,
                    "tool": tool,
                    "start_ns": int(start * 10**9),
                    "duration_ns": int(duration * MS),
                    "adjusted_count": weight,
                }
                for endpoint, start, duration in rows
            ],
            "facts": [{"start_ns": 10**9, "request_ns": int(sum(row[2] for row in rows) * MS)}],
        }
    )


def slow_strata(tables: Any) -> dict[str, tuple[float, float, float | None]]:
    """Count, mean and its error by endpoint, block by block in plain Python."""
    rows = tables.frame("requests").to_dicts()
    start = min(row["start_ns"] for row in rows)
    end = max(row["start_ns"] for row in rows)
    width = max(1, math.ceil((end - start + 1) / effect.BLOCKS))
    result = {}
    for endpoint in {row["endpoint"] for row in rows}:
        blocks: dict[int, list[float]] = {}
        for row in rows:
            if row["endpoint"] == endpoint:
                block = blocks.setdefault((row["start_ns"] - start) // width, [0.0, 0.0])
                block[0] += row["adjusted_count"]
                block[1] += row["adjusted_count"] * row["duration_ns"]
        count = sum(block[0] for block in blocks.values())
        mean = sum(block[1] for block in blocks.values()) / count
        if count < 5:
            continue
        k = len(blocks)
        error = None
        if k >= 5:
            squares = sum((total - number * mean) ** 2 for number, total in blocks.values())
            error = math.sqrt(squares * k / (k - 1)) / count
        result[endpoint] = (count, mean, error)
    return result


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 100), st.integers(0, 1000)), max_size=60
    ),
    st.sampled_from([1.0, 2.0]),
)
def test_strata_are_those_of_a_plain_count(rows: list[Any], weight: float) -> None:
    tables = requests(*rows, weight=weight)
    strata = effect.before(finding(), tables).strata
    expected = slow_strata(tables) if rows else {}
    assert {one.endpoint for one in strata} == set(expected)
    for one in strata:
        count, mean, error = expected[one.endpoint]
        assert one.requests == round(count)
        assert one.mean_ns == pytest.approx(mean, abs=1)
        assert (one.error_ns is None) == (error is None)
        if error is not None:
            assert one.error_ns == pytest.approx(error, abs=1)


def noisy(mean_ms: float, seed: int, share_b: float = 0.5, number: int = 400) -> Any:
    random = np.random.default_rng(seed)
    return requests(
        *(
            (
                "b" if random.random() < share_b else "a",
                float(index),
                float(random.lognormal(0, 0.3)) * mean_ms,
            )
            for index in range(number)
        )
    )


def outcome(before_ms: float, after_ms: float, entry: Entry = ENTRY) -> Measured:
    known = replace(entry, before=effect.before(finding(), noisy(before_ms, 1)))
    return effect.measure(known, noisy(after_ms, 2), QUIET)


def test_a_saving_as_predicted_is_confirmed() -> None:
    measured = outcome(100, 65)
    assert measured.verdict == "confirmed"
    assert measured.saved_low_ns is not None
    assert measured.saved_high_ns is not None
    truth = 35 * MS * math.exp(0.3**2 / 2)
    assert measured.saved_low_ns < truth < measured.saved_high_ns


@pytest.mark.parametrize(
    ("after", "verdict"), [(95, "smaller"), (100, "no evidence"), (130, "slower")]
)
def test_what_differs_from_the_prediction_is_said(after: float, verdict: str) -> None:
    assert outcome(100, after).verdict == verdict


def test_a_risk_claims_no_saving() -> None:
    assert outcome(100, 100, replace(ENTRY, predicted_ns=None)).verdict == "gone"


def test_another_mix_of_requests_is_no_effect() -> None:
    """Slow endpoint b comes less often afterwards; no endpoint became faster."""
    rows = [("b" if index % 2 else "a", index, 200 if index % 2 else 10) for index in range(400)]
    later = [("a" if index % 10 else "b", index, 10 if index % 10 else 200) for index in range(400)]
    known = replace(ENTRY, before=effect.before(finding(), requests(*rows)))
    measured = effect.measure(known, requests(*later), QUIET)
    assert measured.saved_ns == 0


@pytest.mark.slow
def test_false_confirmations_are_rare() -> None:
    """Without any change the interval lies off zero in about one of twenty."""
    verdicts = []
    for seed in range(200):
        known = replace(ENTRY, before=effect.before(finding(), noisy(100, 2 * seed)))
        verdicts.append(effect.measure(known, noisy(100, 2 * seed + 1), QUIET).verdict)
    assert verdicts.count("no evidence") >= 180


def test_the_finding_that_is_found_again_is_back() -> None:
    again = finding(fingerprint=ENTRY.fingerprint, severity="medium")
    outcomes = {RULE.id: Outcome(RULE, "found", findings=[again])}
    measured = effect.measure(ENTRY, noisy(100, 1), outcomes)
    assert (measured.verdict, measured.why) == ("back", again.message)
    low = replace(again, severity="low")
    outcomes = {RULE.id: Outcome(RULE, "found", findings=[low])}
    assert effect.measure(ENTRY, noisy(100, 1), outcomes).verdict == "gone"


def test_a_rule_that_could_not_look_measures_nothing() -> None:
    blind = {RULE.id: Outcome(RULE, "not_applicable", "the capture holds no spans")}
    measured = effect.measure(ENTRY, requests(), blind)
    assert (measured.verdict, measured.why) == ("not measured", "the capture holds no spans")
    assert effect.measure(ENTRY, requests(), {}).verdict == "not measured"


def test_nothing_in_common_is_no_saving() -> None:
    known = replace(
        ENTRY, before=effect.before(finding(), requests(*[("x", i, 5) for i in range(9)]))
    )
    measured = effect.measure(known, noisy(100, 1), QUIET)
    assert (measured.verdict, measured.saved_ns) == ("gone", None)
    assert "too few requests" in measured.why


def test_what_was_not_asked_for_is_not_gone() -> None:
    rows = requests(*[("x", i, 5) for i in range(9)])
    one = finding(scope={"endpoints": ["x"]})
    known = replace(ENTRY, before=effect.before(one, rows), endpoints=("x",))
    measured = effect.measure(known, noisy(100, 1), QUIET)
    assert (measured.verdict, measured.saved_ns) == ("not measured", None)
    assert measured.why == "too few of the requests that it is about are in this capture"


def test_the_prediction_is_for_each_request_concerned() -> None:
    rows = [("a", index, 100) for index in range(10)] + [("b", index, 100) for index in range(30)]
    one = finding(impact_low_ratio=0.1, impact_high_ratio=0.2, scope={"endpoints": ["a"]})
    # 4 s of requests in all: 0.4 s to 0.8 s, over the ten requests of a.
    assert effect.predicted(one, requests(*rows)) == (40 * MS, 80 * MS)
    assert effect.predicted(finding(), requests(*rows)) is None
    assert effect.predicted(one, requests()) is None
    elsewhere = replace(one, scope={"endpoints": ["behind"]})
    assert effect.predicted(elsewhere, requests(*rows)) == (10 * MS, 20 * MS)


def test_before_keeps_the_requests_concerned() -> None:
    rows = [("a", index, 100) for index in range(10)] + [("b", index, 100) for index in range(30)]
    seen = effect.before(finding(scope={"endpoints": ["a"]}), requests(*rows))
    assert [(one.endpoint, one.requests, one.mean_ns) for one in seen.strata] == [
        ("a", 10, 100 * MS)
    ]
    assert isinstance(seen, Before)
