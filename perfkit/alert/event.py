"""What targets are told of."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Alert:
    """One thing that somebody should know."""

    fingerprint: str
    """The same from capture to capture, however long it lasts."""
    name: str
    """`PerfkitFinding`, `PerfkitSlowRequests` or `PerfkitFailingRequests`."""
    severity: str
    summary: str
    description: str
    starts_ns: int
    """Unix time."""
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """An alert that began, goes on, or is over."""

    alert: Alert
    ends_ns: int | None = None
    """When it was over; null while it goes on."""
