"""What the rules name of the problems that are planted in a service: the table, and its command."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.measure import leave_on_sigterm
from bench.planted.problem import names
from bench.planted.record import Service, recorded
from bench.truth import OF_THE_MACHINE, Run, ids, score


def table(service: Service, captures: Iterable[tuple[str, Path]]) -> Iterable[str]:
    """Yield what is found at medium or above, with precision and recall."""
    yield "| planted | named | first | false at medium or above | of the machine |"
    yield "|---|---|---|---|---|"
    right = false = named_count = planted_count = 0
    for name, capture in captures:
        planted = service.planted(name)
        serious = [one for one in Run(capture).findings if one.severity in ("high", "medium")]
        machine = [one for one in serious if one.rule_id.startswith(OF_THE_MACHINE)]
        found = [one for one in serious if one not in machine]
        true = [one for one in found if any(names(each, one) for each in planted)]
        wrong = [one for one in found if one not in true]
        lacking = [each.name for each in planted if not any(names(each, one) for one in true)]
        first = "" if not planted else "yes" if found and found[0] in true else "no"
        right, false = right + len(true), false + len(wrong)
        named_count += len(planted) - len(lacking)
        planted_count += len(planted)
        said = f"{len(planted) - len(lacking)} of {len(planted)}"
        said += f", not {', '.join(lacking)}" if lacking and len(planted) > 1 else ""
        yield f"| {name} | {said} | {first} | {ids(wrong)} | {ids(machine)} |"
    yield score(right, false, named_count, planted_count)


def main(program: str, service: Service, arguments: Sequence[str] | None = None) -> None:
    """Record into a folder what it lacks (about 40 s a problem), and print the table."""
    leave_on_sigterm()
    alone = [problem.name for problem in service.problems]
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--duration", type=float, default=15, help="seconds of load in each run")
    parser.add_argument("--only", nargs="+", choices=[*alone, "all", "none"], metavar="PROBLEM")
    options = parser.parse_args(arguments)
    chosen = options.only or ["none", *alone, "all"]
    captures = recorded(service, options.folder, chosen, options.rounds, options.duration)
    for line in table(service, captures):
        print(line, flush=True)
