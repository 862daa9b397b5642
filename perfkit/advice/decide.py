"""Decisions about findings: made, applied to what the rules found, and checked afterwards."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import replace

from perfkit import units
from perfkit.advice import effect
from perfkit.advice.entry import Entry, Measured
from perfkit.advice.ledger import day
from perfkit.analysis.session import Tables
from perfkit.errors import UsageError
from perfkit.rules import evaluate
from perfkit.rules.model import AdviceStatus, Decision, Finding, Followed, Outcome


def find(name: str, findings: Iterable[Finding], entries: Mapping[str, Entry]) -> str:
    """Return the fingerprint that `name` (its beginning, or the id of a rule) stands for.

    Raises UsageError when there is none, or more than one.
    """
    known = {one.fingerprint: one.rule_id for one in findings}
    known |= {one.fingerprint: one.rule for one in entries.values()}
    fits = [one for one, rule in known.items() if rule == name]
    fits = fits or [one for one in known if len(name) >= 4 and one.startswith(name.lower())]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise UsageError(f"{name} stands for {', '.join(sorted(fits))}", hint="name one of them")
    raise UsageError(
        f"no recommendation {name}",
        hint="name the fingerprint, and the capture in which it was found; "
        "perfkit advice list CAPTURE names them",
    )


def decided(
    finding: Finding | None,
    old: Entry | None,
    status: AdviceStatus,
    *,
    by: str,
    at_ns: int,
    reason: str = "",
    until: str = "",
    tables: Tables | None = None,
) -> Entry:
    """Return the entry of a decision; with the finding's capture it says what was and is to be."""
    if finding is not None and tables is not None:
        entry = Entry(
            fingerprint=finding.fingerprint,
            rule=finding.rule_id,
            title=finding.title,
            status=status,
            by=by,
            at_ns=at_ns,
            reason=reason,
            until=until,
            predicted_ns=effect.predicted(finding, tables),
            endpoints=tuple(finding.scope.get("endpoints", [])),
            tools=tuple(finding.scope.get("tools", [])),
            before=effect.before(finding, tables),
            measured=old.measured if old else (),
        )
        # What was measured before it was done is the yardstick until it comes back.
        return replace(entry, before=old.before) if old and old.status == "done" else entry
    assert old is not None
    return replace(old, status=status, by=by, at_ns=at_ns, reason=reason, until=until)


def applied(
    outcomes: Iterable[Outcome], entries: Mapping[str, Entry], tables: Tables, today: dt.date
) -> list[Outcome]:
    """Return the outcomes with the decision on each of their findings."""
    begun_ns = effect.begun(tables)
    return [
        replace(
            outcome,
            findings=[
                replace(one, decision=_decision(one, entries.get(one.fingerprint), begun_ns, today))
                for one in outcome.findings
            ],
        )
        for outcome in outcomes
    ]


def _decision(
    finding: Finding, entry: Entry | None, begun_ns: int, today: dt.date
) -> Decision | None:
    if entry is None:
        return None
    status, note = entry.status, entry.reason
    since = f"{units.timestamp(entry.at_ns)[:10]} by {entry.by}"
    if status == "dismissed" and entry.until and day(entry.until) < today:
        status, note = "open", f"dismissed until {entry.until}, which is over: {entry.reason}"
    elif status == "dismissed":
        note = f"{entry.reason} (until {entry.until})" if entry.until else entry.reason
    elif status == "done" and begun_ns < entry.at_ns:
        note = f"done on {since}, after this capture"
    elif status == "done" and finding.severity in ("high", "medium"):
        status, note = "open", f"marked as done on {since}, but it is back"
    elif status == "done":
        note = f"done on {since}; what is left is {finding.severity}"
    return Decision(status, entry.by, entry.at_ns, note)


def verified(
    entries: Mapping[str, Entry], outcomes: Iterable[Outcome], tables: Tables
) -> dict[str, Measured]:
    """Return what came of each recommendation that was done before this capture, by fingerprint."""
    by_rule = {outcome.rule.id: outcome for outcome in outcomes}
    begun_ns = effect.begun(tables)
    return {
        name: effect.measure(entry, tables, by_rule)
        for name, entry in sorted(entries.items())
        if entry.status == "done" and entry.at_ns <= begun_ns
    }


def after_measuring(entry: Entry, measured: Measured) -> Entry:
    """Return the entry with a measurement; what is back is open again."""
    kept = entry.with_measured(measured)
    return replace(kept, status="open") if measured.verdict == "back" else kept


def followed(
    entries: Mapping[str, Entry], outcomes: Iterable[Outcome], tables: Tables
) -> list[Followed]:
    """Return what came of the recommendations that were done before this capture."""
    return [
        Followed(
            fingerprint=name,
            title=entries[name].title,
            by=entries[name].by,
            at_ns=entries[name].at_ns,
            good=one.verdict in ("confirmed", "smaller", "gone"),
            words=in_words(one, entries[name]),
        )
        for name, one in verified(entries, outcomes, tables).items()
    ]


def in_words(measured: Measured, entry: Entry) -> str:
    """Say in one sentence what came of it, against what was predicted."""
    parts = [_VERDICT_WORDS[measured.verdict]]
    if measured.saved_ns is not None:
        parts.append(_saving(measured.saved_ns, measured))
    if entry.predicted_ns is not None:
        low, high = (units.duration(one) for one in entry.predicted_ns)
        parts.append(f"predicted {low} to {high}")
    if measured.why:
        parts.append(measured.why.rstrip("."))
    return "; ".join(parts) + "."


def _saving(saved_ns: int, measured: Measured) -> str:
    each = "more" if saved_ns < 0 else "less"
    text = f"{units.duration(abs(saved_ns))} {each} on each of {measured.requests:,} requests"
    if measured.saved_low_ns is None or measured.saved_high_ns is None:
        return f"{text} (too few to say how sure that is)"
    ends = [-measured.saved_low_ns, -measured.saved_high_ns]
    low, high = (f"{'+' if end > 0 else ''}{units.duration(end)}" for end in sorted(ends))
    return f"{text} (95 % interval of the change {low} to {high}, from one recording on each side)"


_VERDICT_WORDS = {
    "confirmed": "It worked as predicted",
    "smaller": "It worked, by less than predicted",
    "no evidence": "The finding is gone, but no saving can be told from noise",
    "slower": "The finding is gone, but these requests have become slower",
    "gone": "The finding is gone",
    "back": "It is back",
    "not measured": "Not measured",
}


def all_findings(outcomes: Iterable[Outcome]) -> list[Finding]:
    """Return all findings, dismissed ones too."""
    kept = list(outcomes)
    return [*evaluate.findings(kept), *evaluate.dismissed(kept)]
