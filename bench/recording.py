"""How much a recorded program is slowed down, and what the recorder itself costs."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.measure import Row

PAIRS = 5
# A fixed amount of work; it prints how long that took, so that starting up does not count.
_PROGRAM = """
import time
def work(n):
    total = 0
    for i in range(n):
        total += i * i % 7
    return total
start = time.perf_counter()
for _ in range(40):
    work(400_000)
print(time.perf_counter() - start)
"""


def _seconds(command: list[str]) -> float:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[0])


def rows() -> list[Row]:
    """Run the program with and without a recorder in turn; medians of the ratio pair by pair."""
    ratios, used, elapsed = [], 0.0, 0.0
    plain = [sys.executable, "-c", _PROGRAM]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(PAIRS):
            alone = _seconds(plain)
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            capture = str(Path(folder) / f"{number}.perfkit")
            record = [sys.executable, "-m", "perfkit.cli", "record", "--rate", "100"]
            recorded = _seconds([*record, "-o", capture, "--", *plain])
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            ratios.append(recorded / alone)
            used += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime - recorded
            elapsed += recorded
    slower = statistics.median(ratios) - 1
    spread = f"{min(ratios) - 1:.1%} to {max(ratios) - 1:.1%}"
    return [
        Row(
            "slow-down of a recorded CPU-bound program, 100 Hz",
            f"{slower:.1%} ({PAIRS} pairs: {spread})",
            "the same program alone, in turn",
            f"{1 + slower:.3f}×",
            "< 2 %",
            slower < 0.02,
        ),
        Row(
            "the recorder and py-spy together, start and end included",
            f"{used / elapsed * 100:.0f} % of a core",
            "the recorded program's own time",
            f"{used / elapsed:.2f}×",
            "no goal for both together",
            None,
        ),
    ]
