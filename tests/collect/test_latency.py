"""Percentiles so far, against the exact ones."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.collect import latency
from perfkit.collect.latency import Latency


@given(
    st.lists(st.integers(0, 2**62), min_size=1, max_size=200),
    st.sampled_from([0.01, 0.5, 0.95, 0.99, 1.0]),
)
def test_a_percentile_is_within_its_bucket(durations: list[int], share: float) -> None:
    watched = Latency()
    for duration in durations:
        watched.add([duration])
    exact = sorted(durations)[max(math.ceil(share * len(durations) - 1e-9) - 1, 0)]
    got = watched.quantile(share)
    assert got is not None
    assert abs(got - exact) <= max(exact / 250, 0.5)
    assert watched.recent_quantile(share, len(durations)) == got
    assert watched.recent_quantile(share, len(durations) + 1) is None


def test_what_is_old_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("perfkit.collect.latency.time.monotonic", lambda: now)
    watched = Latency()
    assert watched.quantile(0.5) is None
    watched.add([100])
    now += latency.WINDOW_S / 2
    watched.add([30_000])
    assert watched.recent_quantile(0.1, 2) == pytest.approx(100, rel=0.01)
    now += latency.WINDOW_S / 2
    assert watched.recent_quantile(0.1, 1) == pytest.approx(30_000, rel=0.01)
    assert watched.quantile(0.1) == pytest.approx(100, rel=0.01)


def test_all_so_far_is_all_however_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("perfkit.collect.latency.time.monotonic", lambda: now)
    watched = Latency()
    for number in range(1, 101):
        watched.add([number * 1000])
        now += latency.WINDOW_S / 4
    assert watched.quantile(0.5) == pytest.approx(50_000, rel=0.004)
    assert watched.quantile(1.0) == pytest.approx(100_000, rel=0.004)
    now -= latency.WINDOW_S / 4
    assert watched.recent_quantile(0.01, 4) == pytest.approx(97_000, rel=0.004)
    assert watched.recent_quantile(0.01, 5) is None
