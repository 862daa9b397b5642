"""The merged call tree of many stack samples."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

# Imported here so that the time measured is the work's own.
import perfkit.analysis  # noqa: F401
from bench.measure import Row, isolated
from perfkit.analysis.session import Tables
from perfkit.capture import Capture

SAMPLES, STACKS = 10_000_000, 20_000


def generate(capture: str) -> int:
    """Write a capture of ten million samples over twenty thousand stacks."""
    import numpy as np
    import polars as pl

    from perfkit.capture import CaptureWriter
    from perfkit.stacks import Frame

    rng = random.Random(1)
    with CaptureWriter(Path(capture)) as writer:
        paths: list[tuple[Frame, ...]] = [(Frame("main", "/srv/app/main.py", 1),)]
        while len(paths) < STACKS:
            base = rng.choice(paths[-2000:])
            if len(base) < 60:
                number = rng.randrange(3000)
                paths.append((*base, Frame(f"function_{number}", f"/srv/app/m{number % 97}.py", 9)))
        ids = np.array([writer.stacks.intern(path) for path in paths])
        chosen = np.random.default_rng(1).zipf(1.3, SAMPLES) % STACKS
        writer.append(
            "samples",
            pl.DataFrame(
                {
                    "ts_ns": np.arange(SAMPLES, dtype=np.int64) * 1_000_000,
                    "duration_ns": np.full(SAMPLES, 10_000_000),
                    "count": np.ones(SAMPLES, dtype=np.int64),
                    "tid": np.arange(SAMPLES) % 8,
                    "stack_id": ids[chosen],
                }
            ),
        )
    return len(set(paths))


def merge(capture: str) -> int:
    """Merge the samples into one call tree."""
    tables = Tables(Capture.open(Path(capture)))
    return int(tables.frame("code_tree").filter(depth=0)["total_ns"].sum())


def merge_loop(capture: str, limit: int) -> int:
    """Merge the first `limit` samples as flamegraph.pl does: a dictionary of folded stacks."""
    opened = Capture.open(Path(capture))
    parents = dict(opened.table("stacks").select("stack_id", "parent_id").collect().iter_rows())
    samples = opened.table("samples").select("stack_id", "duration_ns").head(limit).collect()
    totals: dict[int, int] = {}
    for stack, weight in samples.iter_rows():
        at = stack
        while at is not None:
            totals[at] = totals.get(at, 0) + weight
            at = parents[at]
    return sum(total for stack, total in totals.items() if parents[stack] is None)


def rows() -> list[Row]:
    """Compare the merged call tree with a loop over a tenth of the samples, scaled up."""
    with tempfile.TemporaryDirectory() as folder:
        capture = str(Path(folder) / "samples.perfkit")
        isolated(generate, capture)
        fast = isolated(merge, capture)
        slow = isolated(merge_loop, capture, SAMPLES // 10)
    assert fast.value == SAMPLES * 10_000_000
    scaled = slow.cpu_s * 10
    return [
        Row(
            "merged call tree, 10 M samples of 20,000 stacks",
            f"{fast.cpu_s:.2f} CPU s, {fast.peak_bytes / (1 << 30):.2f} GiB",
            f"a Python loop over them {scaled:.0f} CPU s (a tenth, times ten)",
            f"{scaled / fast.cpu_s:.0f}× faster",
            "< 1 CPU s",
            fast.cpu_s < 1,
        )
    ]
