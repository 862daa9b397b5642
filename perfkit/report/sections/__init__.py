"""The sections of the report, in reading order. A section is a module and a template of its name.

To add one: write `sections/<name>.py` with `TITLE`, `NEEDS`, `EMPTY` and `build`, the template
`report_templates/sections/<name>.html`, and list the module in `SECTIONS`.
"""

from __future__ import annotations

from typing import Any, Protocol

from perfkit.report.context import Context
from perfkit.report.sections import (
    bottlenecks,
    capture_health,
    comparison,
    dependencies,
    flame_code,
    flame_requests,
    heatmaps,
    recommendations,
    slow_queries,
    slow_requests,
    summary,
    trends,
)

SHORT = {
    "recommendations": "To do",
    "flame_requests": "Requests",
    "flame_code": "Code",
    "trends": "Trends",
    "capture_health": "Health",
}
"""What the navigation calls a section whose title is too long for it: all must fit side by side."""


class Section(Protocol):
    """What a section's module has."""

    __name__: str

    @property
    def TITLE(self) -> str:
        """Heading in the page and in its table of contents."""

    @property
    def NEEDS(self) -> tuple[str, ...]:
        """Tables without which there is nothing to show; each must have a row."""

    @property
    def EMPTY(self) -> dict[str, str]:
        """Said when a needed table has no rows: `what` is missing, and `how` to get it."""

    def build(self, context: Context) -> dict[str, Any]:
        """Return the template's variables; `data`, when there, goes to the page's script."""


SECTIONS: tuple[Section, ...] = (
    summary,
    recommendations,
    bottlenecks,
    dependencies,
    flame_requests,
    flame_code,
    comparison,
    slow_requests,
    slow_queries,
    trends,
    heatmaps,
    capture_health,
)
