"""The choice of sampling settings never harms the program."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.collect.sampling import choose


@given(threads=st.integers(0, 2000), cores=st.integers(1, 256), slowdown=st.sampled_from([1, 2, 8]))
def test_rate_times_threads_stays_within_what_py_spy_can_do(
    threads: int, cores: int, slowdown: int
) -> None:
    settings = choose(threads=threads, cores=cores, subprocesses=False, slowdown=slowdown)
    assert 5 <= settings.rate <= 100
    assert settings.rate * threads <= 600 or settings.rate == 5
    assert not settings.blocking
    assert "--nonblocking" in settings.arguments()


@pytest.mark.parametrize(
    ("threads", "cores", "rate"),
    [(1, 8, 100), (6, 8, 100), (12, 8, 50), (101, 8, 5), (4, 2, 100), (8, 2, 50), (4, 1, 50)],
)
def test_few_cores_and_many_threads_lower_the_rate(threads: int, cores: int, rate: int) -> None:
    settings = choose(threads=threads, cores=cores, subprocesses=False)
    assert settings.rate == rate
    assert any("threads" in reason for reason in settings.reasons) == (rate < 100)


def test_what_the_user_asks_for_is_done_and_commented() -> None:
    settings = choose(threads=50, cores=2, subprocesses=True, rate=200, blocking=True)
    assert settings.arguments() == ["--rate", "200", "--subprocesses"]
    reasons = "; ".join(settings.reasons)
    assert "as asked for" in reasons
    assert "more than py-spy can keep up with" in reasons


def test_after_lag_the_rate_goes_down() -> None:
    assert choose(threads=1, cores=2, subprocesses=False, slowdown=4).rate == 25
