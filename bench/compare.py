"""Comparison: how often noise is called a regression, how often one is found, and how fast."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np

from bench.generate import write_otlp
from bench.measure import Row, isolated
from bench.spans import SPANS, import_otlp

TRIALS = 4000
_NOISE = 0.05


def called(change: float, runs: int, trials: int, seed: int) -> float:
    """Return the share of trials in which a change of p95 is called a regression.

    As in a run-to-run noise of 5 %: one figure a run, and five runs a side unless said otherwise.
    """
    from perfkit.analysis.statistics.significance import compare_runs, verdict

    random = np.random.default_rng(seed)
    found = 0
    for _ in range(trials):
        sides = [factor * (1 + random.normal(0, _NOISE, runs)) for factor in (1.0, 1 + change)]
        one = compare_runs(*sides)
        found += verdict(one, one.p) == "grew"
    return found / trials


def pooled(change: float, runs: int, trials: int, seed: int) -> float:
    """Return the same for a Mann–Whitney test over pooled requests, 1,000 a run."""
    random = np.random.default_rng(seed)
    found = 0
    for _ in range(trials):
        sides = [
            np.exp(random.normal(0, 0.5, (runs, 1000)))
            * (factor * (1 + random.normal(0, _NOISE, (runs, 1))))
            for factor in (1.0, 1 + change)
        ]
        before, after = (side.ravel() for side in sides)
        rank = np.concatenate([before, after]).argsort().argsort() + 1.0
        n, m = len(before), len(after)
        u = rank[n:].sum() - m * (m + 1) / 2
        z = (u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)
        found += math.erfc(abs(z) / math.sqrt(2)) < 0.05
    return found / trials


def halves(capture: str) -> int:
    """Compare the first half of a capture with the second, in all respects."""
    from perfkit.analysis.comparison import contrast
    from perfkit.analysis.comparison.compare import compare
    from perfkit.analysis.session import Tables
    from perfkit.capture import Capture

    opened = Capture.open(Path(capture))
    start = opened.table("spans").select("start_ns").collect()["start_ns"]
    middle = int(start.median())
    return compare(contrast.of_moment(Tables(opened), middle)).differences.height


def analyse(capture: str) -> int:
    """Compute what a comparison builds on: every span in its place, and where its time went."""
    from perfkit.analysis.session import Tables
    from perfkit.capture import Capture

    tables = Tables(Capture.open(Path(capture)))
    return tables.frame("requests").height + tables.frame("span_times").height


def rows() -> list[Row]:
    """Measure the test, and a comparison within a million spans."""
    alarms, naive = called(0, 5, TRIALS, 1), pooled(0, 5, 400, 2)
    five, ten = called(0.16, 5, TRIALS, 3), called(0.10, 10, TRIALS, 4)
    with tempfile.TemporaryDirectory() as folder:
        otlp, capture = str(Path(folder) / "otlp"), str(Path(folder) / "bench.perfkit")
        write_otlp(Path(otlp), SPANS)
        isolated(import_otlp, otlp, capture)
        basis, compared = isolated(analyse, capture), isolated(halves, capture)
    return [
        Row(
            "comparison: false alarms, 5 runs a side, 5 % noise",
            f"{alarms:.1%}",
            f"Mann–Whitney over pooled requests {naive:.0%}",
            f"{naive / max(alarms, 1e-9):.0f}× fewer",
            "≤ 2 %",
            # What 4,000 trials can tell apart from 2 %.
            alarms <= 0.02 + 2 * math.sqrt(0.02 * 0.98 / TRIALS),
        ),
        Row(
            "comparison: +16 % found, 5 runs a side",
            f"{five:.1%}",
            "the limit of the design",
            f"{five / 0.95:.2f}×",
            "≥ 95 %",
            five >= 0.95,
        ),
        Row(
            "comparison: +10 % found, 10 runs a side",
            f"{ten:.1%}",
            "the limit of the design",
            f"{ten / 0.95:.2f}×",
            "≥ 95 %",
            ten >= 0.95,
        ),
        Row(
            "compare two halves of 1 M spans in all respects",
            f"{compared.wall_s:.1f} s, {compared.peak_bytes / (1 << 30):.2f} GiB",
            f"requests and self time alone {basis.wall_s:.1f} s",
            f"{compared.wall_s / basis.wall_s:.1f}×",
            "< 8 s",
            compared.wall_s < 8,
        ),
    ]
