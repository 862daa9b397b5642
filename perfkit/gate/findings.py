"""Rules as a gate: findings of a severity or worse fail it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from perfkit.gate.result import Check
from perfkit.rules.model import SEVERITIES, BrokenRule, Finding, Outcome, Severity

_MOST = 0.5
"""In more than half of the runs, a finding is one of the program and not of a single run's luck."""


def at_least(severity: Severity) -> tuple[Severity, ...]:
    """Return a severity and those that are worse."""
    return SEVERITIES[: SEVERITIES.index(severity) + 1]


def fingerprints(runs: Sequence[Sequence[Finding]]) -> set[str]:
    """Return the findings that more than half of the runs have."""
    return {key for key, found in _by_key(runs).items() if len(found) > _MOST * len(runs)}


def checks(
    runs: Sequence[Sequence[Finding]], worst: Severity, known: Collection[str] = ()
) -> list[Check]:
    """Return one check a finding of `worst` or worse, and one that passed where there is none.

    `known` are findings of the baseline: they are told and do not fail.
    """
    wanted = at_least(worst)
    severe = [[one for one in found if one.severity in wanted] for found in runs]
    result = _told_apart([_check(found, len(runs), known) for found in _by_key(severe).values()])
    if not result:
        result = [
            Check("rule", f"no finding of severity {worst} or worse", "", "passed", "None found.")
        ]
    return result


def broken(outcomes: Sequence[Outcome]) -> list[Check]:
    """Return a check for each rule that could not run: what it would have found nobody knows."""
    return [
        Check("rule", outcome.rule.id, "", "error", f"The rule is broken: {outcome.reason}")
        for outcome in outcomes
        if outcome.state == "error" or isinstance(outcome.rule, BrokenRule)
    ]


def _by_key(runs: Sequence[Sequence[Finding]]) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for run in runs:
        for one in {finding.fingerprint: finding for finding in run}.values():
            found.setdefault(one.fingerprint, []).append(one)
    return found


def _check(found: Sequence[Finding], runs: int, known: Collection[str]) -> Check:
    one = found[0]
    sure = len(found) > _MOST * runs
    old = one.fingerprint in known
    of = "" if runs == 1 else f" (in {len(found)} of {runs} runs)"
    message = f"{one.title}. {one.message}{of}"
    if old:
        message += " The baseline has it too."
    return Check(
        "rule",
        one.rule_id,
        _thing(one),
        "passed" if old else "failed" if sure else "unstable",
        message,
        runs=len(found),
        severity=one.severity,
        help=str(one.fix.get("summary", "")),
        key=" ".join(f"{name}={value}" for name, value in one.key.items()),
    )


def _told_apart(checks: Sequence[Check]) -> list[Check]:
    """Add the key to what people read where that is not enough: test results go by their name."""
    often = Counter((check.name, check.thing) for check in checks)
    return [
        replace(check, thing=f"{check.thing} ({check.key})".lstrip())
        if often[check.name, check.thing] > 1
        else check
        for check in checks
    ]


def _thing(finding: Finding) -> str:
    """Say whom it is about: the key, but for what is empty or an id that nobody can read."""
    named = [value for name, value in finding.key.items() if value and not name.endswith("_id")]
    if any(name.endswith("_id") for name in finding.key):
        named += [one for one in finding.scope.get("endpoints", [])[:1] if one not in named]
    return " ".join(named)
