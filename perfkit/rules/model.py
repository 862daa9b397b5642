"""What a rule is, what it finds, and what came of looking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from perfkit.analysis.replay.what_if import Change
from perfkit.rules.messages import Message
from perfkit.sql.checked import Expression, Query
from perfkit.sql.write import Value

Severity = Literal["high", "medium", "low", "info"]
Effort = Literal["low", "medium", "high"]
AdviceStatus = Literal["open", "accepted", "dismissed", "done"]
Code = Literal["total", "self"]
State = Literal["found", "quiet", "not_applicable", "silenced", "error"]

SEVERITIES: tuple[Severity, ...] = ("high", "medium", "low", "info")
"""The most severe first."""

EFFORTS: tuple[Effort, ...] = ("low", "medium", "high")
STATUSES = ("stable", "experimental")

IMPACT_COLUMNS = ("impact_low_ratio", "impact_high_ratio")
"""Columns that every finding has once its saving is known: severity and texts may use them."""


@dataclass(frozen=True)
class Param:
    """A number (or text) of a rule that may be tuned. `value` is in the base unit: ns, bytes …"""

    value: Value
    shown: str
    unit: str
    source: str


@dataclass(frozen=True)
class WhatIf:
    """What a fix changes, and what stays of it.

    Exactly one of three says what is changed. `rows` gives the columns `finding` and `row` (of the
    table `tree`): the factors scale own times (with `subtree`, of everything below the rows too;
    with `between`, also of the parent between its rows, at worst half); or the rows of one parent
    run side by side (`parallel`); or those that are equal in all further columns are answered from
    a cache for `lifetime`; or they wait for one of `places_now` places, which become `places`.

    `times` gives `finding`, `pid`, `tid`, `start_ns` and `duration_ns`: times on threads in which
    spans did not get on; with `loop`, others than the one that kept the event loop. `code` takes
    the times in which the function and file of the finding ran, in all or by themselves.
    """

    rows: Query | None
    times: Query | None
    code: Code | None
    factor_low: Expression | None
    """What stays at best: gives the high end of the saving."""
    factor_high: Expression | None
    lifetime: Expression | None
    places_now: Expression | None
    places: Expression | None
    subtree: bool
    between: bool
    parallel: bool
    loop: bool

    def expressions(self) -> Iterator[Expression]:
        """Yield what is computed of it for each finding."""
        each = (self.factor_low, self.factor_high, self.lifetime, self.places_now, self.places)
        yield from (one for one in each if one)


@dataclass(frozen=True)
class Step:
    """One line of the severity ladder; the last has no condition."""

    when: Expression | None
    severity: Severity


@dataclass(frozen=True)
class Setting:
    """A setting of a named software, and the value to give it."""

    software: str
    name: str
    value: Message
    when: Expression | None


@dataclass(frozen=True)
class Instruction:
    """One thing to do, said in general or to those who use a named software."""

    text: Message
    software: str | None


@dataclass(frozen=True)
class Fix:
    """What to do."""

    summary: Message
    effort: Effort
    steps: tuple[Instruction, ...]
    settings: tuple[Setting, ...]
    metric: Message
    expect: Message


@dataclass(frozen=True)
class RuleTest:
    """A test that the rule carries: rows of tables, and what must come of them."""

    name: str
    line: int
    tables: Mapping[str, list[dict[str, Any]]]
    expect: str | tuple[ExpectedFinding, ...]
    """`quiet`, `not_applicable`, or the findings in their order."""


@dataclass(frozen=True)
class ExpectedFinding:
    """What a test says about one finding; only what is given is compared."""

    severity: Severity
    says: tuple[str, ...]
    """Texts that occur in the title, message, risk, steps or settings."""
    key: Mapping[str, str]


@dataclass(frozen=True)
class Rule:
    """One rule, checked and ready to run."""

    id: str
    title: str
    category: str
    status: str
    path: Path
    requires: Mapping[str, tuple[str, ...]]
    params: Mapping[str, Param]
    query: Query
    derive: Mapping[str, Expression]
    what_if: WhatIf | None
    severity: tuple[Step, ...]
    key: tuple[str, ...]
    headline: Message
    message: Message
    risk: Message | None
    why: Message
    fix: Fix
    false_positives: tuple[str, ...]
    references: tuple[Mapping[str, str], ...]
    tests: tuple[RuleTest, ...]
    silenced: bool = False
    """Whether the user wants to hear nothing of it."""
    endpoints: tuple[str, ...] = ()
    """Patterns of the endpoints that findings may be about; all when empty."""

    @property
    def values(self) -> dict[str, Value]:
        """Return the parameters' values by name."""
        return {name: param.value for name, param in self.params.items()}

    def queries(self) -> Iterator[Query]:
        """Yield its queries."""
        yield self.query
        if self.what_if is not None:
            yield from (one for one in (self.what_if.rows, self.what_if.times) if one)

    def expressions(self) -> Iterator[Expression]:
        """Yield its expressions."""
        yield from self.derive.values()
        yield from (step.when for step in self.severity if step.when)
        yield from (one.when for one in self.fix.settings if one.when)
        if self.what_if is not None:
            yield from self.what_if.expressions()


@dataclass(frozen=True)
class BrokenRule:
    """A file that is no valid rule; `reason` says what is wrong with it and where."""

    id: str
    path: Path
    reason: str
    title: str = "not a valid rule"


@dataclass(frozen=True)
class Decision:
    """What people decided about a finding."""

    status: AdviceStatus
    by: str
    at_ns: int
    note: str
    """What its reader should know: why it was dismissed and until when, that it is back …"""


@dataclass(frozen=True)
class Followed:
    """A recommendation that was done before this capture, and what came of it."""

    fingerprint: str
    title: str
    by: str
    at_ns: int
    good: bool
    """Whether it worked, or at least the finding is gone."""
    words: str


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, with what to do about it."""

    rule_id: str
    title: str
    category: str
    severity: Severity
    status: str
    key: dict[str, str]
    fingerprint: str
    message: str
    why: str
    fix: dict[str, Any]
    """`summary`, `effort`, `steps` [text], `settings` [{software, name, value}], `verify` text."""
    impact_low_ratio: float | None
    """Share of all request time that would go away, at least; null where none is claimed."""
    impact_high_ratio: float | None
    risk: str | None
    confidence: float
    effort: Effort
    priority: float
    evidence: list[dict[str, Any]] = field(default_factory=list)
    references: list[dict[str, str]] = field(default_factory=list)
    false_positives: list[str] = field(default_factory=list)
    scope: dict[str, list[str]] = field(default_factory=dict)
    first_seen_ns: int | None = None
    last_seen_ns: int | None = None
    decision: Decision | None = None

    @property
    def dismissed(self) -> bool:
        """Whether people decided to live with it."""
        return self.decision is not None and self.decision.status == "dismissed"


@dataclass(frozen=True)
class Outcome:
    """What came of running one rule. `reason` says why it could not look, or what broke."""

    rule: Rule | BrokenRule
    state: State
    reason: str = ""
    findings: list[Finding] = field(default_factory=list)
    changes: dict[str, Change] = field(default_factory=dict)
    """What a finding's fix would change, by its fingerprint, where that was replayed."""
