"""What is marked on every chart over time: episodes, and findings that were seen for a while."""

from __future__ import annotations

from typing import Any

from perfkit.report import episodes
from perfkit.report.context import Context

_WHOLE = 0.5
"""A finding that was seen during more of the capture than this is not marked on the time axis."""
_EPISODES = 12


def marks(context: Context) -> list[dict[str, Any]]:
    """Return marks with `kind` (`spike` or `finding`), times in the capture, label and severity."""
    origin_ns, end_ns = context.population.origin_ns, context.population.end_ns
    found = [
        {
            "kind": "spike",
            "from_ns": max(episode.start_ns - origin_ns, 0),
            "to_ns": min(episode.end_ns, end_ns) - origin_ns,
            "label": f"{episodes.name(episode.leading)}: {episodes.size(episode.leading)}",
            "severity": "high" if episode.felt else "info",
        }
        for episode in context.episodes[:_EPISODES]
    ]
    return found + [
        {
            "kind": "finding",
            "from_ns": finding.first_seen_ns - origin_ns,
            "to_ns": finding.last_seen_ns - origin_ns,
            "label": finding.title,
            "severity": finding.severity,
        }
        for finding in context.findings
        if finding.first_seen_ns is not None
        and finding.last_seen_ns is not None
        and finding.last_seen_ns - finding.first_seen_ns < context.population.duration_ns * _WHOLE
    ]
