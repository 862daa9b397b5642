"""Slow requests of a machine that others keep busy."""

from __future__ import annotations

from statistics import mean

import pytest

from perfkit.analysis.comparison import contrast, words
from perfkit.analysis.comparison.compare import compare
from perfkit.analysis.session import Tables
from tests.analysis.build import Memory, S, span_columns
from tests.analysis.test_core_waits import MS, PID, SECOND, process

REQUESTS = 60


def is_slow(number: int) -> bool:
    return number % 20 == 10


def tables(waiting: list[float]) -> Tables:
    """Return one request a second, every twentieth slow, of a process that waits for a core so."""
    lasts = [(900 if is_slow(n) else 100 + n % 3) * MS for n in range(REQUESTS)]
    columns = {"kind": "server", "endpoint": "GET /a", "pid": PID, "thread_id": PID}
    spans = [
        S(1, n * SECOND, n * SECOND + last, trace=n + 1, **columns) for n, last in enumerate(lasts)
    ]
    rows = process([0.0, *waiting], [1.0] * (REQUESTS + 1))
    metrics = {name: [row[name] for row in rows] for name in rows[0]}
    return Tables(Memory({"spans": span_columns(spans), "metrics": metrics}))


@pytest.mark.parametrize(
    ("slow_wait", "typical_wait", "said"),
    [
        (4.0, 0.0, "Most unusual beside that, and perhaps because of it: app"),
        (4.0, 4.0, "Most unusual beside that, and perhaps because of it: app"),
        (0.25, 0.0, "Most likely cause: app"),
        (0.0, 4.0, "Most likely cause: app"),
        (0.0, 0.0, "Most likely cause: app"),
    ],
)
def test_slow_requests_that_may_have_waited_for_a_core_have_no_sure_cause(
    slow_wait: float, typical_wait: float, said: str
) -> None:
    waiting = [slow_wait if is_slow(n) else typical_wait for n in range(REQUESTS)]
    compared = compare(contrast.of_tail(tables(waiting)))
    # One thread runs, so of each moment the share waits / (waits + 1) was waited.
    lasts = {True: [900.0] * 3, False: [100.0 + n % 3 for n in range(REQUESTS) if not is_slow(n)]}
    lasts[False] = [one for one in lasts[False] if one <= 101]  # typical is up to the 75th
    share = {True: slow_wait / (slow_wait + 1), False: typical_wait / (typical_wait + 1)}
    longer = mean(lasts[True]) - mean(lasts[False])
    waited = mean(lasts[True]) * share[True] - mean(lasts[False]) * share[False]
    expected = min(1.0, max(0.0, waited / longer))
    assert compared.core_ratio == pytest.approx(expected, abs=0.002)
    answer = words.answer(compared)
    assert any(line.startswith(said) for line in answer)
    assert any("waiting for a core" in line for line in answer) == (expected >= 0.5)


def test_what_nobody_measured_is_not_known() -> None:
    spans = [S(1, n * 9, n * 9 + 1 + n % 9, trace=n + 1, kind="server") for n in range(40)]
    assert (
        compare(contrast.of_tail(Tables(Memory({"spans": span_columns(spans)})))).core_ratio is None
    )
