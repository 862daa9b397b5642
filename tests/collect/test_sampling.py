"""The choice of sampling settings never harms the program."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.collect.sampling import Limit, Settings, Wishes, choose
from perfkit.errors import UsageError


def chosen(threads: int, cores: int, wishes: Wishes | None = None, **options: Limit) -> Settings:
    return choose(
        threads=threads, cores=cores, subprocesses=False, wishes=wishes or Wishes(), **options
    )


@given(threads=st.integers(0, 2000), cores=st.integers(1, 256), limit=st.integers(1, 200))
def test_rate_times_threads_stays_within_what_py_spy_can_do(
    threads: int, cores: int, limit: int
) -> None:
    settings = chosen(threads, cores)
    assert 5 <= settings.rate <= 100
    assert settings.rate * threads <= 600 or settings.rate == 5
    assert not settings.blocking
    assert "--nonblocking" in settings.arguments()
    limited = chosen(threads, cores, limit=Limit(limit, "because"))
    assert limited.rate == min(settings.rate, limit)
    assert any("because" in reason for reason in limited.reasons) == (limit < settings.rate)


@pytest.mark.parametrize(
    ("threads", "cores", "rate"),
    [(1, 8, 100), (6, 8, 100), (12, 8, 50), (101, 8, 5), (4, 2, 100), (8, 2, 50), (4, 1, 50)],
)
def test_few_cores_and_many_threads_lower_the_rate(threads: int, cores: int, rate: int) -> None:
    settings = chosen(threads, cores)
    assert settings.rate == rate
    assert any("threads" in reason for reason in settings.reasons) == (rate < 100)


def test_what_the_user_asks_for_is_done_and_commented() -> None:
    settings = choose(
        threads=50, cores=2, subprocesses=True, wishes=Wishes(rate=200, blocking=True)
    )
    assert settings.arguments() == ["--rate", "200", "--subprocesses"]
    reasons = "; ".join(settings.reasons)
    assert "as asked for" in reasons
    assert "more than py-spy can keep up with" in reasons


def test_a_limit_stands_above_what_was_asked_for() -> None:
    settings = chosen(1, 8, Wishes(rate=200), limit=Limit(20, "it cost too much"))
    assert (settings.rate, settings.reasons[0]) == (20, "rate 20/s: it cost too much")


def test_native_frames_pause_the_program() -> None:
    settings = chosen(1, 8, Wishes(native=True))
    assert settings.arguments() == ["--rate", "100", "--native"]
    assert "paused" in settings.reasons[-1]
    Wishes(native=True, blocking=True).check()
    with pytest.raises(UsageError, match="paused"):
        Wishes(native=True, blocking=False).check()
