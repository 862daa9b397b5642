"""`make bench`: runs every benchmark, or those named, and prints one table."""

from __future__ import annotations

import importlib
import sys

BENCHMARKS = (
    *("startup", "ingest", "spans", "analysis", "jaeger", "samples", "recording", "page"),
    *("compare", "rca", "resources"),
)
DETAILS = ("tables",)
"""Run only when named."""


def main(names: list[str]) -> int:
    """Print the table; 0 when every goal that could be judged was reached."""
    unknown = set(names) - set(BENCHMARKS + DETAILS)
    if unknown:
        print(
            f"unknown: {sorted(unknown)}; known: {', '.join(BENCHMARKS + DETAILS)}", file=sys.stderr
        )
        return 2
    print("| what | measured | against | ratio | goal | reached |")
    print("|---|---|---|---|---|---|")
    missed = 0
    for name in names or BENCHMARKS:
        for row in importlib.import_module(f"bench.{name}").rows():
            reached = {True: "yes", False: "no", None: "not judged"}[row.reached]
            missed += row.reached is False
            cells = (row.what, row.measured, row.against, row.ratio, row.goal, reached)
            print("| " + " | ".join(cells) + " |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
