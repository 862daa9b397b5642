"""Each derived table by itself, of spans, samples and metrics: `python -m bench tables`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl

import perfkit.analysis  # noqa: F401
from bench.analysis import every_table
from bench.measure import Row, isolated
from bench.shapes import START_NS, requests
from perfkit.capture import CaptureWriter
from perfkit.stacks import Frame

SPANS, SAMPLES, METRICS = 1_000_000, 1_000_000, 20_000
_METRICS = (
    *("process.cpu.utilization", "process.memory.usage", "system.cpu.utilization"),
    *("db.client.connection.count", "db.client.connection.max"),
)


def write(capture: str) -> int:
    """Write spans, samples of the threads that they ran on, and metrics of the same time."""
    window = SPANS // 8 * 1_000_000
    with CaptureWriter(Path(capture)) as writer:
        writer.append("spans", requests(0, SPANS).with_columns(pid=pl.lit(1)))
        stacks = [
            writer.stacks.intern([Frame("main", "/srv/app/main.py", 1), *_frames(number)])
            for number in range(2000)
        ]
        number = np.arange(SAMPLES)
        writer.append(
            "samples",
            pl.DataFrame(
                {
                    "ts_ns": START_NS + number // 8 * (window // SAMPLES * 8),
                    "duration_ns": np.full(SAMPLES, window // SAMPLES * 8),
                    "count": np.ones(SAMPLES, dtype=np.int64),
                    "pid": np.ones(SAMPLES, dtype=np.int64),
                    "tid": 1000 + number % 8,
                    "stack_id": np.array(stacks)[number * 7919 % len(stacks)],
                    "state": pl.Series(["running", "idle"]).gather(pl.Series(number % 3 % 2)),
                }
            ),
        )
        number = np.arange(METRICS)
        names = pl.Series(_METRICS).gather(pl.Series(number % len(_METRICS)))
        writer.append(
            "metrics",
            pl.DataFrame(
                {
                    "ts_ns": START_NS + number * (window // METRICS),
                    "name": names,
                    "value": (number * 31 % 100).astype(np.float64),
                    "service": pl.Series(["gateway"]).gather(pl.Series(np.zeros_like(number))),
                }
            ),
        )
    return SPANS


def rows() -> list[Row]:
    """Return one row a table, the heaviest first; there is no goal for any alone."""
    with tempfile.TemporaryDirectory() as folder:
        capture = str(Path(folder) / "tables.perfkit")
        isolated(write, capture)
        cost = isolated(every_table, capture)
    total = sum(cost.value.values())
    return [
        Row(
            f"table `{name}`, 1 M spans and 1 M samples",
            f"{seconds:.2f} CPU s",
            f"all {len(cost.value)} tables {total:.1f} CPU s",
            f"{seconds / total:.0%}",
            "none",
            None,
        )
        for name, seconds in sorted(cost.value.items(), key=lambda item: -item[1])
    ]


def _frames(number: int) -> list[Frame]:
    depth = 3 + number % 20
    return [Frame(f"f{number % (7 * k + 3)}", f"/srv/app/m{k}.py", k) for k in range(depth)]
