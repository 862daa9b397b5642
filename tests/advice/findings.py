"""A finding, as the rules make one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from perfkit.rules.model import Finding

_FINDING = Finding(
    rule_id="db.slow-query",
    title="Make this query faster",
    category="database",
    severity="high",
    status="stable",
    key={"query_id": "1"},
    fingerprint="00000000000000aa",
    message="500 ms on average.",
    why="It is slow.",
    fix={"summary": "Add an index.", "effort": "low", "steps": [], "settings": [], "verify": "p95"},
    impact_low_ratio=None,
    impact_high_ratio=None,
    risk=None,
    confidence=0.8,
    effort="low",
    priority=0.1,
)


def finding(**changes: Any) -> Finding:
    return replace(_FINDING, **changes)
