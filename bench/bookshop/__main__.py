"""What is named of problems that no rule was written for?

    python -m bench.bookshop FOLDER [--rounds 2]

Records into the folder what it lacks (about 40 s a problem) and prints a table in Markdown. Needs
PostgreSQL.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from bench.bookshop.problems import PROBLEMS, Problem
from bench.bookshop.record import recorded
from bench.measure import leave_on_sigterm
from bench.truth import OF_THE_MACHINE, Run, ids, score
from perfkit.rules.model import Finding


def names(problem: Problem, finding: Finding) -> bool:
    """Whether a finding names a problem: a rule that should find it, at the right place."""
    said = f"{finding.title} {finding.message} {finding.evidence}"
    return finding.rule_id.startswith(problem.rules) and (
        problem.path in said or bool(problem.place and problem.place in said)
    )


def table(captures: Iterable[tuple[str, Path]]) -> Iterable[str]:
    """Yield what is found at medium or above, with precision and recall."""
    problems = {problem.name: problem for problem in PROBLEMS}
    yield "| planted | named | first | false at medium or above | of the machine |"
    yield "|---|---|---|---|---|"
    right = false = named = planted = 0
    for name, capture in captures:
        serious = [one for one in Run(capture).findings if one.severity in ("high", "medium")]
        machine = [one for one in serious if one.rule_id.startswith(OF_THE_MACHINE)]
        found = [one for one in serious if one not in machine]
        true = [one for one in found if name and names(problems[name], one)]
        wrong = [one for one in found if one not in true]
        first = "yes" if found and found[0] in true else "no"
        right, false = right + len(true), false + len(wrong)
        named, planted = named + bool(true), planted + bool(name)
        yield (
            f"| {name or 'none'} | {('yes' if true else 'NO') if name else ''} "
            f"| {first if name else ''} | {ids(wrong)} | {ids(machine)} |"
        )
    yield score(right, false, named, planted)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.bookshop", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--duration", type=float, default=15, help="seconds of load in each run")
    options = parser.parse_args()
    chosen = ["", *(problem.name for problem in PROBLEMS)]
    captures = recorded(options.folder, chosen, options.rounds, options.duration)
    for line in table(captures):
        print(line, flush=True)


if __name__ == "__main__":
    leave_on_sigterm()
    main()
