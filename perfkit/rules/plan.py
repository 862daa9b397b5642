"""If I do only three things: the findings whose savings add up, replayed together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from perfkit import units
from perfkit.analysis.replay.edits import Edits
from perfkit.analysis.replay.what_if import Change, forecast, saved_range
from perfkit.analysis.session import Tables
from perfkit.rules import evaluate
from perfkit.rules.model import Finding, Outcome

STEPS = 3
_OVERLAPS = 0.5
"""Ours: a finding of whose own saving less than this is left beside those before it says nearly the
same as they do."""
_MOST_TRIED = 8
"""Ours, to bound the time: so many findings are replayed beside those before them."""
_WORTH_A_STEP = 0.005
"""Ours: what saves less of the request time is no step, unless it is a risk."""


@dataclass(frozen=True)
class Step:
    """One thing to do, and what it saves beside those before it, as shares of request time."""

    finding: Finding
    saved_low_ratio: float | None
    """None where no saving is claimed: a risk."""
    saved_high_ratio: float | None
    replayed: bool
    """Whether the saving is that of a replay beside the steps before; if not, it is an estimate of
    the rule by itself, which may overlap with theirs."""

    def words(self) -> str:
        """Say what it saves; empty where no saving is claimed."""
        if not self.saved_high_ratio:
            return ""
        saved = units.percent_range(self.saved_low_ratio or 0.0, self.saved_high_ratio)
        return f"saves {saved} of request time" + ("" if self.replayed else ", taken by itself")


@dataclass(frozen=True)
class Plan:
    """The first things to do, in their order, and what they bring together."""

    steps: tuple[Step, ...]
    covered: dict[str, str]
    """Fingerprint of a finding that saves nearly the same -> that of the step which does."""
    together: dict[str, Any] | None
    """`saved_low_ratio`, `saved_high_ratio`, and the row of `forecast` over all requests; None
    where nothing was replayed."""

    def words(self) -> str:
        """Say what the steps that were replayed bring together; empty where none was."""
        if self.together is None:
            return ""
        marks = self.together
        saved = units.percent_range(marks["saved_low_ratio"], marks["saved_high_ratio"])
        said = [
            _moved(name, *(marks[f"{name}_{which}_ns"] for which in ("now", "low", "high")))
            for name in ("p50", "p95")
        ]
        return f"{self._who()} {saved} of all request time: {' and '.join(said)}.{self._rest()}"

    def _who(self) -> str:
        numbers = [str(number) for number, step in enumerate(self.steps, 1) if step.replayed]
        if len(numbers) == len(self.steps):
            return "Done together they save"
        if len(numbers) == 1:
            return f"Number {numbers[0]} alone saves"
        return f"Numbers {' and '.join(numbers)} together save"

    def _rest(self) -> str:
        if not self._estimated():
            return ""
        return " Savings taken by themselves may overlap with that and with each other."

    def _estimated(self) -> bool:
        return any(step.saved_high_ratio and not step.replayed for step in self.steps)


def _moved(name: str, now_ns: float, low_ns: float, high_ns: float) -> str:
    now, to = units.duration(now_ns), _between(low_ns, high_ns)
    return f"{name} stays at {now}" if to == now else f"{name} from {now} to {to}"


def _between(low_ns: float, high_ns: float) -> str:
    low, high = units.duration(low_ns), units.duration(high_ns)
    return low if low == high else f"{low} (at worst {high})"


def plan(outcomes: Iterable[Outcome], tables: Tables) -> Plan:
    """Choose the first things to do among the findings, the most important first.

    A finding that mostly saves what those before it save already is no step of its own. Savings are
    those of a replay of all steps together, so that nothing is counted twice.
    """
    outcomes = list(outcomes)
    changes = {key: one for outcome in outcomes for key, one in outcome.changes.items()}
    return _Choice(tables, changes).choose(evaluate.findings(outcomes))


class _Choice:
    def __init__(self, tables: Tables, changes: dict[str, Change]) -> None:
        self._tables, self._changes = tables, changes
        self._chosen: list[Change] = []
        self._saved = (0.0, 0.0)

    def choose(self, findings: Sequence[Finding]) -> Plan:
        steps: list[Step] = []
        covered: dict[str, str] = {}
        for finding in findings[: STEPS + _MOST_TRIED]:
            if len(steps) == STEPS:
                break
            change = self._changes.get(finding.fingerprint)
            if change is None:
                if _counts(finding):
                    known = finding.impact_low_ratio, finding.impact_high_ratio
                    steps.append(Step(finding, *known, replayed=False))
                continue
            saved = self._beside(change)
            own = _middle((finding.impact_low_ratio or 0.0, finding.impact_high_ratio or 0.0))
            more = (saved[0] - self._saved[0], saved[1] - self._saved[1])
            if own < _WORTH_A_STEP:
                continue
            if _middle(more) < _OVERLAPS * own:
                covered[finding.fingerprint] = self._covers(change, steps)
                continue
            steps.append(Step(finding, max(0.0, min(more)), max(0.0, *more), replayed=True))
            self._chosen.append(change)
            self._saved = saved
        return Plan(tuple(steps), covered, self._together())

    def _beside(self, change: Change) -> tuple[float, float]:
        """Return what is saved with a change beside those that are chosen."""
        return saved_range(self._tables, reduce(add, self._chosen, change))

    def _covers(self, change: Change, steps: Sequence[Step]) -> str:
        """Return the step that leaves least of the saving of a change."""
        left = {}
        for step in steps:
            other = self._changes.get(step.finding.fingerprint)
            if other is not None:
                both = _middle(saved_range(self._tables, other + change))
                left[step.finding.fingerprint] = both - _middle(saved_range(self._tables, other))
        return min(left, key=left.__getitem__, default="")

    def _together(self) -> dict[str, Any] | None:
        if not self._chosen:
            return None
        change = reduce(add, self._chosen, Change(Edits(), Edits()))
        low, high = self._saved
        marks = forecast(self._tables, change).row(0, named=True)
        return {"saved_low_ratio": low, "saved_high_ratio": high, **marks}


def _counts(finding: Finding) -> bool:
    """Whether a finding that was not replayed is a step: a risk, a saving, or one unsaid.

    Without requests no share of their time can be saved. What is not of low severity counts then,
    and of risks.
    """
    if finding.risk is not None or finding.impact_high_ratio is None:
        return finding.severity in ("high", "medium")
    return finding.impact_high_ratio >= _WORTH_A_STEP


def _middle(saved: tuple[float, float]) -> float:
    return (saved[0] + saved[1]) / 2
