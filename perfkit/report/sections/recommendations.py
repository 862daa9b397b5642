"""What to do, by priority: one card a finding, with its evidence."""

from __future__ import annotations

from typing import Any

from perfkit.report.columns import guess, plain
from perfkit.report.context import Context
from perfkit.rules.model import Finding

TITLE = "Recommendations"
NEEDS: tuple[str, ...] = ()
EMPTY: dict[str, str] = {}

_EVIDENCE_ROWS = 10


def build(context: Context) -> dict[str, Any]:
    """Return the cards and, when there are none, what was looked at."""
    states = [outcome.state for outcome in context.outcomes]
    return {
        "cards": [_card(finding) for finding in context.findings],
        "looked": sum(state in ("quiet", "found") for state in states),
        "not_applicable": states.count("not_applicable"),
        "broken": states.count("error"),
    }


def _card(finding: Finding) -> dict[str, Any]:
    rows = [
        {key: plain(value) for key, value in row.items()}
        for row in finding.evidence[:_EVIDENCE_ROWS]
    ]
    return {
        "finding": finding,
        "columns": guess(rows),
        "rows": [{**dict.fromkeys(key for row in rows for key in row), **row} for row in rows],
        "more_rows": len(finding.evidence) - len(rows),
    }
