"""Measuring: a piece of work in a process of its own, with its CPU time and peak memory."""

from __future__ import annotations

import importlib
import json
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from perfkit import freed


@dataclass(frozen=True)
class Row:
    """One line of the table that `make bench` prints."""

    what: str
    measured: str
    against: str
    """The peer or limit, with its own figure from the same run."""
    ratio: str
    goal: str
    reached: bool | None
    """None when the goal could not be judged here; `against` says why."""


@dataclass(frozen=True)
class Cost:
    """What a piece of work cost."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    value: Any


def isolated(work: Callable[..., Any], *arguments: Any) -> Cost:
    """Run `work(*arguments)` in a fresh process; arguments and result go through JSON.

    CPU time is that of the work alone, without starting Python and importing the module.
    """
    done = subprocess.run(
        [sys.executable, "-m", "bench.measure", work.__module__, work.__qualname__],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{work.__module__}.{work.__qualname__} failed:\n{done.stderr}")
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def median_wall(command: Sequence[str], runs: int = 7) -> float:
    """Return the median wall seconds of a command, after one run to warm the caches."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def leave_on_sigterm() -> None:
    """Leave through the `finally` clauses, which end the programs that were started."""
    signal.signal(signal.SIGTERM, lambda signum, _frame: sys.exit(128 + signum))


def _child() -> None:
    module, name = sys.argv[1:3]
    freed.keep_in_polars()  # as the command line does
    work = getattr(importlib.import_module(module), name)
    arguments = json.load(sys.stdin)
    wall, cpu = time.perf_counter(), time.process_time()
    value = work(*arguments)
    cost = {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "value": value,
    }
    print(json.dumps(cost))


if __name__ == "__main__":
    _child()
