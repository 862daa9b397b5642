"""Measure what each planted problem costs: run the load with all of them, then without each.

Prints a table in Markdown. With the defaults this takes about four minutes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perfkit.demo.problems import PROBLEMS, Problem
from perfkit.demo.processes import ServiceError, end_on_signals, running

SHORTEST_S = 10


def run(mend: str, load_options: Sequence[str]) -> dict[str, Any]:
    """Return the load's summary, with `rss_growth_mib` of the gateway, while `mend` is mended."""
    with (
        running("perfkit.demo.backend") as backend,
        running("perfkit.demo.gateway", "--backend-url", backend.url, "--mend", mend) as gateway,
    ):
        command = [sys.executable, "-m", "perfkit.demo.load", "--url", gateway.url, *load_options]
        rss_before_mib = resident_mib(gateway.process.pid)
        summary: dict[str, Any] = json.loads(subprocess.check_output(command))
        summary["rss_growth_mib"] = resident_mib(gateway.process.pid) - rss_before_mib
        return summary


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ServiceError(f"process {pid} has ended")


def rows(problem: Problem, present: dict[str, Any], mended: dict[str, Any]) -> list[str]:
    """Return the table's rows about one problem."""
    if problem.name == "leak":
        before, after = present["rss_growth_mib"], mended["rss_growth_mib"]
        return [f"| leak | growth of resident memory | {before:.0f} MiB | {after:.0f} MiB | |"]
    return [
        f"| {problem.name} | {label} | {_spread(present, label)} | {_spread(mended, label)} "
        f"| {_saved(present, mended, label):.1%} |"
        for label in problem.affects
    ]


def _saved(present: dict[str, Any], mended: dict[str, Any], label: str) -> float:
    """Return the time saved in the calls of `label`, as a share of all calls' time."""
    before, after = (summary["tools"][label]["total_ms"] for summary in (present, mended))
    return float((before - after) / present["total_ms"])


def _spread(summary: dict[str, Any], label: str) -> str:
    tool = summary["tools"][label]
    return f"{tool['p50_ms']:.0f} / {tool['p95_ms']:.0f} ms"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m perfkit.demo.measure", description=__doc__)
    parser.add_argument("--duration", type=int, default=20, help="seconds of load in each run")
    parser.add_argument("--seed", type=int, default=1, help="as of the load generator")
    options = parser.parse_args(arguments)
    if options.duration < SHORTEST_S:
        parser.error(f"--duration must be at least {SHORTEST_S}, so that every tool is called")
    load_options = [f"--duration={options.duration}", f"--seed={options.seed}"]
    end_on_signals()
    try:
        present = run("none", load_options)
        print(
            "| problem | affects | all problems, p50 / p95 | this one mended, p50 / p95 "
            "| saved, of all time |\n|---|---|---|---|---|",
            flush=True,
        )
        for problem in PROBLEMS:
            print("\n".join(rows(problem, present, run(problem.name, load_options))), flush=True)
    except ServiceError as error:
        sys.exit(str(error))
    except subprocess.CalledProcessError:
        sys.exit("the load generator failed")


if __name__ == "__main__":
    main()
