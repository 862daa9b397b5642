"""The result of a gate in the terminal: the verdict, what is wrong, what to mind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from perfkit.cli import text

if TYPE_CHECKING:
    from perfkit.gate.result import Check, Result, State

_COLOURS: dict[State, str] = {
    "failed": "red",
    "error": "red",
    "unstable": "yellow",
    "passed": "green",
}
_VERDICTS = {
    "failed": "FAILED",
    "error": "CANNOT JUDGE",
    "unstable": "UNSTABLE: give more runs, or run it again",
    "passed": "PASSED",
}
_COUNTED: dict[State, str] = {"error": "could not be judged"}
_MOST_PASSED = 12


def show(result: Result) -> None:
    """Print the result, the worst first."""
    click.secho(_VERDICTS[result.verdict], fg=_COLOURS[result.verdict], bold=True)
    counts = [
        f"{len(result.of(state))} {_COUNTED.get(state, state)}"
        for state in _COLOURS
        if result.of(state)
    ]
    text.paragraph(f"{', '.join(counts)}. {_runs(result)}")
    told: tuple[State, ...] = ("failed", "error", "unstable")
    for state in told:
        checks = result.of(state)
        if checks:
            text.heading(state)
            for check in checks:
                _show(check, state)
    if result.cause:
        text.heading("most likely cause")
        for line in result.cause:
            text.paragraph(line, indent=2)
    if result.warnings:
        text.heading("mind")
        for warning in result.warnings:
            text.paragraph(warning, indent=2)
    passed = result.of("passed")
    if passed:
        text.heading("passed")
        for check in passed[:_MOST_PASSED]:
            text.paragraph(f"{_title(check)}: {check.message}", indent=2)
        if len(passed) > _MOST_PASSED:
            text.paragraph(f"… and {len(passed) - _MOST_PASSED} more (--json has all)", indent=2)


def _show(check: Check, state: State) -> None:
    click.secho(f"  {text.plain(_title(check))}", fg=_COLOURS[state])
    text.paragraph(check.message, indent=4)
    if check.help:
        text.paragraph(check.help, indent=4)


def _title(check: Check) -> str:
    return f"{check.name} [{check.thing}]" if check.thing else check.name


def _runs(result: Result) -> str:
    words = f"{len(result.runs)} run{'s' if len(result.runs) != 1 else ''}"
    if result.confirmed_by:
        words += f", {result.confirmed_by} of them recorded again to confirm"
    if result.baseline:
        words += f"; baseline of {len(result.baseline)}, {result.tested} figures tested"
    return words + "."
