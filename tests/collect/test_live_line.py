"""The line that is shown while recording."""

from __future__ import annotations

from perfkit.cli.record import live_line
from perfkit.collect.status import Status


def status(**changes: object) -> Status:
    plain: dict[str, object] = {
        "elapsed_ns": 12_345_678_901,
        "received": {},
        "refused": 0,
        "postponed": 0,
        "threads": 3,
        "rate": None,
        "max_lag_ns": 0,
        "lost": 0,
        "samples": 0,
        "p95_ns": None,
        "size_bytes": 0,
        "backlog_bytes": 0,
    }
    return Status(**(plain | changes))


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
            postponed=4,
            samples=5678,
            p95_ns=420_000_000,
            size_bytes=3 << 20,
            backlog_bytes=200 << 20,
        ),
        987.4,
    )
    assert "1,234 spans (987/s)" in line
    assert "5,678 samples" in line
    assert "p95 420 ms" in line
    assert "3 MiB" in line
    assert "200 MiB to compact" in line
    assert "4 requests postponed" in line
    assert "lag 1.5 s" in line
    assert "2 requests refused" in line
    assert "1 segments lost" in line
