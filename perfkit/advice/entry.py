"""One entry of the ledger: a recommendation, its status, and what it was to bring and brought."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from perfkit.rules.model import AdviceStatus

STATUSES: tuple[AdviceStatus, ...] = ("open", "accepted", "dismissed", "done")

Verdict = Literal["confirmed", "smaller", "no evidence", "slower", "gone", "back", "not measured"]
VERDICTS: tuple[Verdict, ...] = (
    "confirmed",
    "smaller",
    "no evidence",
    "slower",
    "gone",
    "back",
    "not measured",
)


@dataclass(frozen=True)
class Stratum:
    """Requests of one endpoint and tool: how many, and how long on average."""

    endpoint: str
    tool: str
    requests: int
    mean_ns: int
    error_ns: int | None
    """Standard error of the mean over blocks of time; null when there were too few of them."""
    blocks: int


@dataclass(frozen=True)
class Before:
    """How long the requests took that a recommendation is about, when it was last seen."""

    capture: str
    at_ns: int
    strata: tuple[Stratum, ...]


@dataclass(frozen=True)
class Measured:
    """What was seen after it was done: time saved on each request, with a 95 % interval."""

    capture: str
    at_ns: int
    verdict: Verdict
    saved_ns: int | None = None
    saved_low_ns: int | None = None
    saved_high_ns: int | None = None
    requests: int = 0
    why: str = ""


@dataclass(frozen=True)
class Entry:
    """What the ledger knows about one recommendation."""

    fingerprint: str
    rule: str
    title: str
    status: AdviceStatus
    by: str
    at_ns: int
    reason: str = ""
    until: str = ""
    """Last day of a dismissal, as 2027-01-31; empty for ever."""
    predicted_ns: tuple[int, int] | None = None
    """What each request concerned was to save, at least and at most; null where none is claimed."""
    endpoints: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    before: Before | None = None
    measured: tuple[Measured, ...] = field(default=())
    """The newest last; at most `MEASURED_KEPT`."""

    def with_measured(self, one: Measured) -> Entry:
        """Return the entry with one more measurement; one of the same capture is replaced."""
        others = [old for old in self.measured if old.capture != one.capture]
        return replace(self, measured=(*others, one)[-MEASURED_KEPT:])


MEASURED_KEPT = 5
"""Ours: enough to see whether an effect lasts, and few lines in a review."""
