"""What came of a gate: checks, each with its state, and the verdict over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Literal

from perfkit.masking import mask

Kind = Literal["budget", "regression", "rule"]
State = Literal["passed", "failed", "unstable", "error"]
Verdict = Literal["passed", "failed", "unstable", "error"]

STATES: tuple[State, ...] = ("failed", "error", "unstable", "passed")
"""The worst first: the verdict is the worst state of all checks."""

EXIT_CODES: dict[Verdict, int] = {"passed": 0, "failed": 3, "error": 2, "unstable": 0}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. Figures are in the unit that the measure's name says."""

    kind: Kind
    name: str
    """What was asked: a budget's text, a rule's id, `endpoint p95`. Stable from run to run."""
    thing: str
    """The endpoint, tool or finding that it is about; empty for all requests."""
    state: State
    message: str
    """One sentence with the figures in it."""
    measure: str = ""
    value: float | None = None
    limit: float | None = None
    """Of a budget."""
    before: float | None = None
    change: float | None = None
    """Of a regression, with its interval: relative to `before` if `relative`, else a difference."""
    low: float | None = None
    high: float | None = None
    relative: bool | None = None
    p: float | None = None
    """Corrected for how many figures were tested."""
    detectable: float | None = None
    """A change of this size would be found in 95 of 100 cases, at the noise that was seen."""
    runs: int | None = None
    runs_before: int | None = None
    severity: str = ""
    """Of a rule's finding."""
    help: str = ""
    """What to do about it."""
    key: str = ""
    """What tells it from others of this name where `thing`, which people read, does not."""

    @property
    def fingerprint(self) -> str:
        """Return what is the same for the same check of the same thing in every run."""
        parts = "\0".join((self.kind, self.name, self.key or self.thing))
        return blake2b(parts.encode("utf-8", "replace"), digest_size=16).hexdigest()


def masked(check: Check) -> Check:
    """Return a check as it may be shown to all who see the job: without what looks like a token."""
    return replace(
        check,
        thing=mask(check.thing),
        message=mask(check.message),
        help=mask(check.help),
        key=mask(check.key),
    )


@dataclass(frozen=True)
class Source:
    """A run that took part: its capture or history entry, and where it comes from."""

    name: str
    id: str
    commit: str | None = None
    branch: str | None = None
    started_ns: int | None = None


@dataclass(frozen=True)
class Result:
    """Everything that the outputs write."""

    checks: Sequence[Check]
    runs: Sequence[Source]
    baseline: Sequence[Source] = ()
    warnings: Sequence[str] = ()
    """What makes the answer weaker: few runs, another machine, another sampling."""
    cause: Sequence[str] = ()
    """What most likely made a regression, in sentences."""
    confirmed_by: int = 0
    """How many of `runs` were recorded again to confirm a first answer."""
    tested: int = 0
    """How many figures were compared with the baseline."""
    _order: dict[State, int] = field(
        default_factory=lambda: {state: place for place, state in enumerate(STATES)}, repr=False
    )

    @property
    def verdict(self) -> Verdict:
        """Return the worst state of all checks."""
        return min((check.state for check in self.checks), key=self._order.__getitem__)

    def of(self, *states: State) -> list[Check]:
        """Return the checks in one of these states, the worst first."""
        chosen = [check for check in self.checks if check.state in states]
        return sorted(chosen, key=lambda check: self._order[check.state])
