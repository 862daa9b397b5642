"""`make bench`: runs every benchmark, or those named, and prints one table.

With `--write` the tables of docs/performance.md are made of what was measured, each in its place.
"""

from __future__ import annotations

import importlib
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from bench.measure import Row, leave_on_sigterm

BENCHMARKS = (
    *(
        "startup",
        "ingest",
        "spans",
        "json_import",
        "analysis",
        "jaeger",
        "samples",
        "recording",
        "page",
    ),
    *("rules", "compare", "gate", "noise", "rca", "resources"),
)
DETAILS = ("tables",)
"""Run only when named."""

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
HEAD = ("| what | measured | against | ratio | goal | reached |", "|---|---|---|---|---|---|")
REACHED = {True: "yes", False: "no", None: "not judged"}


def main(arguments: list[str]) -> int:
    """Print the table; 0 when every goal that could be judged was reached."""
    names = [name for name in arguments if name != "--write"]
    unknown = set(names) - set(BENCHMARKS + DETAILS)
    if unknown:
        print(
            f"unknown: {sorted(unknown)}; known: {', '.join(BENCHMARKS + DETAILS)}", file=sys.stderr
        )
        return 2
    print("\n".join(HEAD))
    missed = 0
    for name in names or BENCHMARKS:
        lines, began = [], time.monotonic()
        for row in importlib.import_module(f"bench.{name}").rows():
            missed += row.reached is False
            lines.append(line(row))
            print(lines[-1], flush=True)
        if "--write" in arguments and name in BENCHMARKS:
            page = PAGE.read_text(encoding="utf-8")
            PAGE.write_text(written(page, name, lines), encoding="utf-8")
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return 1 if missed else 0


def line(row: Row) -> str:
    """Return a row of the table in Markdown."""
    cells = (row.what, row.measured, row.against, row.ratio, row.goal, REACHED[row.reached])
    return "| " + " | ".join(cells) + " |"


def written(page: str, name: str, lines: Iterable[str]) -> str:
    """Return the page with the table of one benchmark between its marks."""
    begin, end = f"<!-- bench {name} -->\n", "<!-- end -->"
    table = "\n".join((*HEAD, *lines)) + "\n"
    marked = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    made, places = marked.subn(lambda _: begin + table + end, page)
    if places != 1:
        raise ValueError(f"{PAGE.name} has {places} places for the benchmark {name}")
    return made


if __name__ == "__main__":
    leave_on_sigterm()
    sys.exit(main(sys.argv[1:]))
