"""The load generator: what it plans, how it counts, and a short run against a real gateway."""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.demo.load import Outcomes, loopback_url, main, percentile, plan
from perfkit.demo.problems import PROBLEMS
from perfkit.demo.processes import running
from perfkit.demo.tools import TOOLS


def test_the_same_seed_gives_the_same_calls() -> None:
    assert list(plan(10, 30, seed=4)) == list(plan(10, 30, seed=4))
    assert list(plan(10, 30, seed=4)) != list(plan(10, 30, seed=5))


@given(st.integers(0, 1000), st.floats(0.1, 60), st.floats(1, 100))
def test_calls_are_due_in_order_and_within_the_duration(
    seed: int, duration_s: float, rate: float
) -> None:
    due = [at_s for at_s, _ in plan(duration_s, rate, seed)]
    assert all(earlier <= later for earlier, later in itertools.pairwise(due))
    assert all(0 < at_s < duration_s for at_s in due)


def test_the_rate_is_kept_on_average() -> None:
    assert sum(1 for _ in plan(2000, 20, seed=1)) == pytest.approx(2000 * 20, rel=0.05)


def test_the_default_load_reaches_every_tool_and_problem() -> None:
    labels = [call.label for _, call in plan(20, 16, seed=1)]
    slowed = {label for problem in PROBLEMS for label in problem.affects} - {"all"}
    assert TOOLS.keys() | slowed <= set(labels)
    assert min(labels.count(label) for label in slowed) >= 10


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_percentile_is_the_least_value_that_covers_the_share(
    values: list[float], share: float
) -> None:
    covering = [
        each
        for each in values
        if sum(other <= each for other in values) / len(values) >= share - 1e-12
    ]
    assert percentile(values, share) == min(covering)


def test_summary_counts_by_label() -> None:
    outcomes = Outcomes()
    for latency_ms in (1, 2, 3, 4):
        outcomes.add("a", latency_ms, failed=latency_ms == 4)
    outcomes.add("b", 100, failed=False)
    assert outcomes.summary() == {
        "requests": 5,
        "errors": 1,
        "p50_ms": 3,
        "p95_ms": 100,
        "total_ms": 110,
        "tools": {
            "a": {"requests": 4, "errors": 1, "p50_ms": 2, "p95_ms": 4, "total_ms": 10},
            "b": {"requests": 1, "errors": 0, "p50_ms": 100, "p95_ms": 100, "total_ms": 100},
        },
    }
    assert Outcomes().summary()["p50_ms"] is None


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:80"])
def test_loopback_is_allowed(url: str) -> None:
    assert loopback_url(url) == url


@pytest.mark.parametrize(
    "url", ["http://example.org", "http://10.0.0.1", "https://127.0.0.1", "127.0.0.1:80", ""]
)
def test_nothing_else_is(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((ValueError, argparse.ArgumentTypeError)):
        loopback_url(url)
    with pytest.raises(SystemExit) as ended:
        main(["--url", url])
    assert ended.value.code == 2


@pytest.mark.parametrize("option", ["--rate=0", "--rate=1e9", "--duration=1e9", "--rate=many"])
def test_the_load_is_bounded(option: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--url", "http://127.0.0.1:1", option])
    assert ended.value.code == 2


@pytest.mark.slow
def test_a_run_prints_one_line_about_what_it_sent(backend_url: str) -> None:
    with running("perfkit.demo.gateway", "--backend-url", backend_url) as gateway:
        command = [sys.executable, "-m", "perfkit.demo.load", "--url", gateway.url]
        output = subprocess.check_output(
            [*command, "--duration", "1", "--rate", "60", "--seed", "3"], text=True
        )
    summary = json.loads(output)
    assert output.count("\n") == 1
    planned = list(plan(1, 60, seed=3))
    wrong = [call for _, call in planned if call.key == "wrong-key" or "Atlantis" in str(call.body)]
    assert summary["requests"] == len(planned)
    assert len(wrong) <= summary["errors"] < len(planned) / 4
    for label, tool in summary["tools"].items():
        assert tool["requests"] == sum(call.label == label for _, call in planned)
        assert 0 < tool["p50_ms"] <= tool["p95_ms"]


def test_a_gateway_that_is_away_makes_every_call_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["--url", "http://127.0.0.1:1", "--duration", "0.5", "--rate", "20"])
    summary = json.loads(capsys.readouterr().out)
    assert summary["requests"] == summary["errors"] > 0
