"""The line that is shown while recording."""

from __future__ import annotations

from perfkit.cli.record import live_line
from perfkit.collect.record import Status


def status(**changes: object) -> Status:
    plain: dict[str, object] = {
        "elapsed_ns": 12_345_678_901,
        "received": {},
        "refused": 0,
        "threads": 3,
        "rate": None,
        "max_lag_ns": 0,
        "lost": 0,
    }
    return Status(**(plain | changes))  # type: ignore[arg-type]


def test_it_says_only_what_is_recorded() -> None:
    assert live_line(status()) == "12 s  (^C ends it)"
    assert live_line(status(elapsed_ns=5, rate=50)) == "0 s  3 threads at 50/s  (^C ends it)"


def test_it_says_what_came_and_what_is_wrong() -> None:
    line = live_line(
        status(
            received={"spans": 1234, "bytes": 2048},
            refused=2,
            max_lag_ns=1_500_000_000,
            lost=1,
        )
    )
    assert "1,234 spans" in line
    assert "2 KiB" in line
    assert "lag 1.5 s" in line
    assert "2 requests refused" in line
    assert "1 segments lost" in line
