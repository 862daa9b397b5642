"""How long the shipped rules look at a million spans, beyond the derived tables."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

# Imported here so that the time measured is the work's own.
import perfkit.analysis
from bench.measure import Row, isolated
from bench.shapes import START_NS, requests
from perfkit.analysis.session import Tables
from perfkit.capture import Capture, CaptureWriter
from perfkit.rules import evaluate, load
from perfkit.stacks import Frame

_COUNT = 1_000_000
_GOAL_S = 5.0
_PID, _THREADS, _STACKS = 7, 8, 5_000
# Code that rules about code look at, beside the program's own.
_LIBRARIES = (
    "json/encoder.py",
    "re/__init__.py",
    "ssl.py",
    "logging/__init__.py",
    "jinja2/lexer.py",
)


def write(capture: str, *, recorded: bool) -> None:
    """Write a million spans; if recorded, with stack samples of their threads and metrics."""
    with CaptureWriter(Path(capture)) as writer:
        spans = requests(0, _COUNT).with_columns(pid=pl.lit(_PID))
        writer.append("spans", spans)
        if recorded:
            length_ns = int(spans["start_ns"].max() or 0) - START_NS
            writer.append("samples", _samples(writer, length_ns))
            writer.append("metrics", _metrics(length_ns))


def look(capture: str) -> tuple[float, dict[str, float]]:
    """Run the shipped rules over a capture whose tables are there.

    Returns how long that took, and the CPU seconds of each rule.
    """
    tables = Tables(Capture.open(Path(capture)))
    for derived in perfkit.analysis.DERIVED:
        tables.frame(derived.name)
    rules = load.load_rules()
    seconds, start = {}, time.perf_counter()
    for rule in rules:
        begin = time.process_time()
        for outcome in evaluate.run([rule], tables):
            if outcome.state == "error":
                raise RuntimeError(f"{outcome.rule.id} failed")
        seconds[outcome.rule.id] = time.process_time() - begin
    return time.perf_counter() - start, seconds


def rows() -> list[Row]:
    """Measure spans alone, and spans with samples and metrics."""
    result = []
    with tempfile.TemporaryDirectory() as folder:
        for recorded, what in ((False, ""), (True, ", 1 M samples and 100,000 metric points")):
            capture = str(Path(folder) / f"{recorded}.perfkit")
            write(capture, recorded=recorded)
            cost = isolated(look, capture)
            wall_s, seconds = cost.value
            most = sorted(seconds, key=lambda rule: -seconds[rule])[:3]
            heaviest = ", ".join(f"{rule} {seconds[rule]:.2f}" for rule in most)
            result.append(
                Row(
                    f"{len(seconds)} rules over 1 M spans{what}, beyond the derived tables",
                    f"{wall_s:.1f} s, {sum(seconds.values()):.1f} CPU s ({heaviest})",
                    "the limit of the design",
                    f"{wall_s / _GOAL_S:.2f}×",
                    f"< {_GOAL_S:.0f} s",
                    wall_s < _GOAL_S,
                )
            )
    return result


def _samples(writer: CaptureWriter, length_ns: int) -> pl.DataFrame:
    random = np.random.default_rng(1)
    paths: list[tuple[Frame, ...]] = [(Frame("main", "/srv/app/main.py", 1),)]
    while len(paths) < _STACKS:
        base = paths[random.integers(max(0, len(paths) - 500), len(paths))]
        number = int(random.integers(3000))
        file = f"/srv/app/m{number % 97}.py"
        if number % 10 == 0:
            file = f"/usr/lib/python3.12/{_LIBRARIES[number // 10 % len(_LIBRARIES)]}"
        if len(base) < 60:
            paths.append((*base, Frame(f"function_{number}", file, number)))
    stacks = np.array([writer.stacks.intern(path) for path in paths])
    each_ns = length_ns * _THREADS // _COUNT
    number = np.arange(_COUNT)
    return pl.DataFrame(
        {
            "ts_ns": START_NS + number // _THREADS * each_ns,
            "duration_ns": np.full(_COUNT, each_ns),
            "count": np.ones(_COUNT, dtype=np.int64),
            "pid": np.full(_COUNT, _PID),
            "tid": 1000 + number % _THREADS,
            "stack_id": stacks[random.zipf(1.3, _COUNT) % _STACKS],
            "state": pl.Series(["running", "idle"]).gather(random.integers(0, 2, _COUNT)),
        }
    )


def _metrics(length_ns: int) -> pl.DataFrame:
    same = {"unit": "1", "kind": "gauge", "service": "gateway"}
    names = ["process.cpu.utilization", "process.memory.usage", "system.cpu.utilization"]
    count = 100_000
    number = np.arange(count)
    return pl.DataFrame(
        {
            "ts_ns": START_NS + number // 100 * (length_ns * 100 // count),
            "name": pl.Series(names).gather(number % 100 % len(names)),
            "value": np.random.default_rng(2).random(count),
            "instance": pl.Series([f"gateway-{n}" for n in range(100)]).gather(number % 100),
        }
    ).with_columns(**{name: pl.lit(value) for name, value in same.items()})
