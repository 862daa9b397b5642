"""What is derived from spans: at every size, of hostile traces, and beside a tight Python loop."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from pathlib import Path

import polars as pl

# Imported here so that the time measured is the work's own.
import perfkit.analysis
from bench.loop import times_columns, times_loop
from bench.measure import Cost, Row, isolated
from bench.shapes import SHAPES, write_requests, write_shape
from perfkit.analysis.filters import Filters
from perfkit.analysis.sharded import open_tables
from perfkit.capture import Capture

MILLION = 1_000_000
SIZES = (10_000, 100_000, MILLION, 10 * MILLION)
_GIB = 1 << 30


def every_table(capture: str, engine: str = "auto") -> dict[str, float]:
    """Compute every derived table; returns the CPU seconds of each beyond those before it."""
    tables = open_tables(Capture.open(Path(capture)), Filters(), engine)
    seconds = {}
    for derived in perfkit.analysis.DERIVED:
        begin = time.process_time()
        # Of shards the largest tables stay in files until columns of them are asked for.
        tables[derived.name].select(pl.len()).collect()
        seconds[derived.name] = time.process_time() - begin
    return seconds


def rows() -> list[Row]:
    """Measure requests of eight spans, and single traces of a million spans."""
    with tempfile.TemporaryDirectory() as folder:
        capture = str(Path(folder) / "requests.perfkit")
        isolated(write_requests, capture, MILLION)
        result = [_loop("structure, self time and critical path, 1 M spans", capture)]
        for number, shape in enumerate(SHAPES):
            capture = str(Path(folder) / f"{number}.perfkit")
            isolated(write_shape, capture, shape, MILLION)
            result.append(_one_trace(shape, capture))
        return [*result, *_growth(folder)]


def _loop(what: str, capture: str) -> Row:
    # In turn and three times: the first to run after the capture was written is slower by a half.
    runs = [(isolated(times_columns, capture), isolated(times_loop, capture)) for _ in range(3)]
    equal = all(fast.value == slow.value for fast, slow in runs)
    fast_s, slow_s = (
        statistics.median(one.cpu_s for one in side) for side in zip(*runs, strict=True)
    )
    ratio = slow_s / fast_s
    return Row(
        what,
        f"{fast_s:.2f} CPU s",
        f"a tight Python loop {slow_s:.1f} CPU s ({_equal(equal)})",
        f"{ratio:.1f}× faster",
        "≥ 5×",
        ratio >= 5 and equal,
    )


def _one_trace(shape: str, capture: str) -> Row:
    fast, slow = isolated(times_columns, capture), isolated(times_loop, capture)
    equal = fast.value == slow.value
    return Row(
        f"one trace of 1 M spans, {shape}: self time and critical path",
        f"{fast.wall_s:.1f} s, {fast.peak_bytes / _GIB:.2f} GiB",
        f"a tight Python loop {slow.wall_s:.1f} s ({_equal(equal)})",
        f"{slow.wall_s / fast.wall_s:.1f}× faster",
        "< 3 s",
        fast.wall_s < 3 and equal,
    )


def _growth(folder: str) -> list[Row]:
    costs = []
    for size in SIZES:
        capture = str(Path(folder) / f"{size}.perfkit")
        isolated(write_requests, capture, size)
        costs.append(isolated(every_table, capture))
    million, largest = costs[-2:]
    exponent = _exponent(million, largest)
    # 10 M are analysed in shards, which leave tables in files: the step to that is no growth.
    divided = isolated(every_table, str(Path(folder) / f"{MILLION}.perfkit"), "shards")
    overall = _slope([math.log(size) for size in SIZES], [math.log(cost.cpu_s) for cost in costs])
    each = ", ".join(f"{cost.cpu_s:.2f}" for cost in costs)
    return [
        Row(
            "all derived tables, 1 M spans in 125,000 requests",
            f"{million.wall_s:.1f} s, {million.peak_bytes / _GIB:.2f} GiB"
            + heaviest_tables(million),
            "the limit of the design",
            f"{million.wall_s / 5:.2f}×",
            "< 5 s and 2 GiB",
            million.wall_s < 5 and million.peak_bytes < 2 * _GIB,
        ),
        Row(
            "all derived tables, 10 M spans",
            f"{largest.wall_s:.0f} s, {largest.peak_bytes / _GIB:.2f} GiB",
            "ten times 1 M spans",
            f"{largest.cpu_s / million.cpu_s / 10:.2f}× the CPU",
            "< 8 GiB",
            largest.peak_bytes < 8 * _GIB,
        ),
        Row(
            "growth from 10 k to 10 M spans",
            f"{each} CPU s: exponent {overall:.2f}",
            f"linear is 1.00; from 1 M to 10 M alone {exponent:.2f}, and with both in shards "
            f"{_exponent(divided, largest):.2f}",
            f"{overall:.2f}",
            "≤ 1.00",
            overall <= 1.0,
        ),
    ]


def _exponent(million: Cost, largest: Cost) -> float:
    return math.log(largest.cpu_s / million.cpu_s) / math.log(SIZES[-1] / SIZES[-2])


def heaviest_tables(cost: Cost) -> str:
    """Return which four of `every_table` took the most, in words."""
    heaviest = sorted(cost.value.items(), key=lambda item: -item[1])[:4]
    return " (" + ", ".join(f"{name} {seconds:.2f}" for name, seconds in heaviest) + " CPU s)"


def _slope(x: list[float], y: list[float]) -> float:
    """Return the slope of the least-squares line."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return above / sum((a - mean_x) ** 2 for a in x)


def _equal(equal: bool) -> str:
    return "equal sums" if equal else "SUMS DIFFER"
