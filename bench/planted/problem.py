"""What is planted in a service, and which of the rules' families should name it."""

from __future__ import annotations

from dataclasses import dataclass

from perfkit.rules.model import Finding


@dataclass(frozen=True)
class Problem:
    """One planted problem."""

    name: str
    path: str
    """The endpoint that has it."""
    wrong: str
    rules: tuple[str, ...]
    """How the identifiers begin of the rules that name it."""
    places: tuple[str, ...] = ()
    """What a finding that names it must mention, one of them, or the path."""


def names(problem: Problem, finding: Finding) -> bool:
    """Whether a finding names a problem: a rule that should find it, at the right place."""
    said = f"{finding.title} {finding.message} {finding.evidence}"
    places = (problem.path, *problem.places)
    return finding.rule_id.startswith(problem.rules) and any(place in said for place in places)
