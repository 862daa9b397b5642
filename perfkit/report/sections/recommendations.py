"""What to do, by priority: one card a finding, with its evidence."""

from __future__ import annotations

import shlex
from typing import Any

from perfkit.report.columns import guess, plain
from perfkit.report.context import Context
from perfkit.rules import evaluate
from perfkit.rules.model import Finding

TITLE = "Recommendations"
NEEDS: tuple[str, ...] = ()
EMPTY: dict[str, str] = {}

_EVIDENCE_ROWS = 10


def build(context: Context) -> dict[str, Any]:
    """Return the cards and, when there are none, what was looked at."""
    states = [outcome.state for outcome in context.outcomes]
    titles = {finding.fingerprint: finding.title for finding in context.findings}
    return {
        "cards": [_card(finding, context) for finding in context.findings],
        "dismissed": [_card(finding, context) for finding in evaluate.dismissed(context.outcomes)],
        "covered": {
            fingerprint: {"by": by, "title": titles[by]}
            for fingerprint, by in context.plan.covered.items()
        },
        "looked": sum(state in ("quiet", "found") for state in states),
        "not_applicable": states.count("not_applicable"),
        "broken": states.count("error"),
    }


def _card(finding: Finding, context: Context) -> dict[str, Any]:
    rows = [
        {key: plain(value) for key, value in row.items()}
        for row in finding.evidence[:_EVIDENCE_ROWS]
    ]
    return {
        "finding": finding,
        "columns": guess(rows),
        "rows": [{**dict.fromkeys(key for row in rows for key in row), **row} for row in rows],
        "more_rows": len(finding.evidence) - len(rows),
        "commands": _commands(finding, context.tables.capture.path.name),
    }


def _commands(finding: Finding, capture: str) -> list[tuple[str, str]]:
    """Return the commands that change the status, ready to copy."""
    target = f"{finding.fingerprint} {shlex.quote(capture)}"
    status = finding.decision.status if finding.decision else "open"
    commands = [
        ("accepted", "Follow it", f"perfkit advice accept {target}"),
        ("done", "It was followed", f"perfkit advice done {target}"),
        ("dismissed", "Leave it", f'perfkit advice dismiss {target} --reason "…"'),
        ("open", "Open it again", f"perfkit advice reopen {target}"),
    ]
    return [(label, command) for name, label, command in commands if name != status]
