"""Run rules over the tables of a capture: findings, and for each rule what came of it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import polars as pl

from perfkit.analysis.replay.what_if import Change
from perfkit.analysis.session import Tables, derived_tables
from perfkit.model import BY_NAME
from perfkit.rules import impact, messages, score, software
from perfkit.rules.model import BrokenRule, Finding, Outcome, Rule, Setting, Severity
from perfkit.sql.execute import Limits, add_column

MAX_FINDINGS = 20
"""Findings of one rule that are kept, in the order of its query."""

_ENDPOINTS = ("endpoint", "entry_endpoint", "endpoints")
_TOOLS = ("tool", "entry_tool", "tools")
_SOURCES = ("spans", "samples", "metrics")
_NOT_EVIDENCE = frozenset(("confidence", "impact_low_ratio", "impact_high_ratio"))


def run(
    rules: Iterable[Rule | BrokenRule], tables: Tables, limits: Limits | None = None
) -> list[Outcome]:
    """Return the outcome of every rule; those with the most important findings come first.

    A rule that fails becomes an outcome with the state `error`; the others stand.
    """
    tables.asks_much()
    capture = _Capture(tables, limits or Limits())
    outcomes = [_outcome(rule, capture) for rule in rules]
    return sorted(outcomes, key=_order)


def findings(outcomes: Iterable[Outcome]) -> list[Finding]:
    """Return the findings, the most important first, without those that people dismissed."""
    return [one for one in _ranked(outcomes) if not one.dismissed]


def nothing_found(outcomes: Iterable[Outcome]) -> str:
    """Say what no finding means: how many rules looked, and how many could not."""
    states = [outcome.state for outcome in outcomes]
    looked = states.count("quiet")
    blind = states.count("not_applicable") + states.count("error")
    if not looked:
        return "No rule could look for problems: the capture lacks what they need."
    text = f"No problem found by the {_rules(looked)} that could look."
    return f"{text} {_rules(blind)} could not." if blind else text


def _rules(number: int) -> str:
    return "1 rule" if number == 1 else f"{number} rules"


def dismissed(outcomes: Iterable[Outcome]) -> list[Finding]:
    """Return the findings that people dismissed, the most important first."""
    return [one for one in _ranked(outcomes) if one.dismissed]


def _ranked(outcomes: Iterable[Outcome]) -> list[Finding]:
    return sorted((one for outcome in outcomes for one in outcome.findings), key=score.rank)


def _order(outcome: Outcome) -> tuple[int, float, str, str]:
    if outcome.findings:
        return score.rank(outcome.findings[0])
    return (99, 0.0, outcome.rule.id, "")


class _Capture:
    """The tables, and what several rules ask about them."""

    def __init__(self, tables: Tables, limits: Limits) -> None:
        self.tables, self.limits = tables, limits
        self._present: dict[tuple[str, str | None], bool] = {}

    @cached_property
    def software(self) -> software.Software:
        return software.seen(self.tables)

    @cached_property
    def period(self) -> tuple[int | None, int | None]:
        row = self.tables.frame("facts").row(0, named=True)
        return row["start_ns"], row["end_ns"]

    def lacking(self, rule: Rule) -> str | None:
        """Return what the rule needs and the capture lacks, as a reason; None when all is here."""
        for table, columns in rule.requires.items():
            if not self._has(table):
                roots = [one for one in _SOURCES if one in _recorded(table)]
                root = next((one for one in roots if not self._has(one)), table)
                return f"the capture holds no {root.replace('_', ' ')}"
            for column in columns:
                if not self._has(table, column):
                    return f"the capture never says {column} (table {table})"
        return None

    def _has(self, table: str, column: str | None = None) -> bool:
        """Return whether a table has rows, or a column any value."""
        known = self._present.get((table, column))
        if known is None:
            if column is None:
                known = self.tables.has_rows(table)
            else:
                lazy = self.tables[table].select(pl.col(column).is_not_null().any())
                known = bool(lazy.collect().item())
            self._present[table, column] = known
        return known


def _recorded(table: str) -> set[str]:
    """Return the captured tables that a table is made from."""
    if table in BY_NAME:
        return {table}
    return {root for need in derived_tables()[table].needs for root in _recorded(need)}


def _outcome(rule: Rule | BrokenRule, capture: _Capture) -> Outcome:
    if isinstance(rule, BrokenRule):
        return Outcome(rule, "error", rule.reason)
    if rule.silenced:
        return Outcome(rule, "silenced", "silenced by the user")
    try:
        lacking = capture.lacking(rule)
        if lacking:
            return Outcome(rule, "not_applicable", lacking)
        found, changes = _findings(rule, capture)
    except Exception as error:
        # Whatever breaks in one rule, the others must still be heard.
        reason = messages.shorten(messages.plain(f"{type(error).__name__}: {error}"), 400)
        return Outcome(rule, "error", reason)
    return Outcome(rule, "found" if found else "quiet", findings=found, changes=changes)


def _findings(rule: Rule, capture: _Capture) -> tuple[list[Finding], dict[str, Change]]:
    params = rule.values
    frame = capture.tables.answer(rule.query, params, capture.limits)
    frame = _about(frame, rule.endpoints).head(MAX_FINDINGS)
    if frame.is_empty():
        return [], {}
    for name, expression in rule.derive.items():
        frame = add_column(frame, name, expression, params)
    frame, changes = impact.add(frame, rule, capture.tables, params, capture.limits)
    severities = _severities(rule, frame)
    settings = _settings(rule, frame)
    rows = [_plain_row(row) for row in frame.iter_rows(named=True)]
    found = [
        _finding(rule, row, severity, capture, chosen)
        for row, severity, chosen in zip(rows, severities, settings, strict=True)
    ]
    replayed = {
        finding.fingerprint: change
        for finding, change in zip(found, changes, strict=True)
        if change is not None
    }
    return _told_once(sorted(found, key=score.rank)), replayed


def _told_once(found: Sequence[Finding]) -> list[Finding]:
    """Return the findings, those about one program's processes as one: its worst, with all rows."""
    alike: dict[str, list[Finding]] = {}
    for finding in found:
        alike.setdefault(finding.fingerprint, []).append(finding)
    return [first if not rest else _together(first, rest) for first, *rest in alike.values()]


def _together(first: Finding, others: Sequence[Finding]) -> Finding:
    names = [text for one in others for name, text in one.key.items() if text != first.key[name]]
    return replace(
        first,
        message=f"{first.message} So it is with {messages.text(names)}."
        if names
        else first.message,
        evidence=[row for one in (first, *others) for row in one.evidence],
    )


def _about(frame: pl.DataFrame, patterns: Sequence[str]) -> pl.DataFrame:
    """Return the rows about endpoints that match a pattern, and those about no endpoint at all."""
    columns = [name for name in _ENDPOINTS if name in frame.columns]
    if not patterns or not columns:
        return frame
    either = "|".join(".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns)
    # A pattern may leave the method out: /tools/* is as good as POST /tools/*.
    expression = rf"(?s)^(?:[A-Z]+ )?(?:{either})$"
    hits = [
        pl.col(name).list.eval(pl.element().str.contains(expression)).list.any()
        if isinstance(frame.schema[name], pl.List)
        else pl.col(name).str.contains(expression)
        for name in columns
    ]
    nowhere = pl.all_horizontal(pl.col(columns).is_null())
    return frame.filter(pl.any_horizontal(nowhere, *(hit.fill_null(False) for hit in hits)))


def _severities(rule: Rule, frame: pl.DataFrame) -> list[Severity]:
    """Return for each row the first step that holds; a condition that is null does not hold."""
    result: list[Severity] = [rule.severity[-1].severity] * frame.height
    for step in reversed(rule.severity[:-1]):
        assert step.when is not None
        holds = add_column(frame, "_holds", step.when, rule.values)["_holds"]
        result = [step.severity if one else other for one, other in zip(holds, result, strict=True)]
    return result


def _settings(rule: Rule, frame: pl.DataFrame) -> list[list[Setting]]:
    """Return for each row the settings of the fix whose condition holds."""
    result: list[list[Setting]] = [[] for _ in range(frame.height)]
    for setting in rule.fix.settings:
        holds: Iterable[bool | None] = [True] * frame.height
        if setting.when is not None:
            holds = add_column(frame, "_holds", setting.when, rule.values)["_holds"]
        for chosen, one in zip(result, holds, strict=True):
            if one:
                chosen.append(setting)
    return result


def _plain_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row as JSON can hold it: NaN and infinities are missing values."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }


def _finding(
    rule: Rule,
    row: Mapping[str, Any],
    severity: Severity,
    capture: _Capture,
    settings: list[Setting],
) -> Finding:
    texts = {**rule.values, **row}
    key = {name: "" if row[name] is None else str(row[name]) for name in rule.key}
    confidence = min(1.0, max(0.0, float(row["confidence"] or 0.0)))
    low, high = row["impact_low_ratio"], row["impact_high_ratio"]
    start, end = capture.period
    return Finding(
        rule_id=rule.id,
        title=rule.headline.render(texts),
        category=rule.category,
        severity=severity,
        status=rule.status,
        key=key,
        fingerprint=score.fingerprint(rule.id, key),
        message=rule.message.render(texts),
        why=rule.why.render(texts),
        fix=_fix(rule, texts, capture.software.of(row.get("service")), settings),
        impact_low_ratio=low,
        impact_high_ratio=high,
        risk=rule.risk.render(texts) if rule.risk else None,
        confidence=confidence,
        effort=rule.fix.effort,
        priority=score.priority(severity, (low, high), confidence, rule.fix.effort),
        evidence=[{name: row[name] for name in row if name not in _NOT_EVIDENCE}],
        references=[dict(one) for one in rule.references],
        false_positives=list(rule.false_positives),
        scope={"endpoints": _names(row, _ENDPOINTS), "tools": _names(row, _TOOLS)},
        first_seen_ns=row.get("first_seen_ns", start),
        last_seen_ns=row.get("last_seen_ns", end),
    )


def _fix(
    rule: Rule, texts: Mapping[str, Any], seen: software.Software, settings: list[Setting]
) -> dict[str, Any]:
    fix = rule.fix
    settings = [one for one in settings if seen.fits(one.software)]
    # Where nothing of what the rule knows was seen, its reader knows best which one applies.
    if any(one.software in seen.names for one in settings if one.software not in software.ALWAYS):
        settings = [one for one in settings if one.software in seen.names]
    return {
        "summary": fix.summary.render(texts),
        "effort": fix.effort,
        "steps": [
            one.text.render(texts)
            for one in fix.steps
            if one.software is None or one.software in seen.names
        ],
        "settings": [
            {"software": one.software, "name": one.name, "value": one.value.render(texts)}
            for one in settings
        ],
        "verify": f"{fix.metric.render(texts)}: {fix.expect.render(texts)}",
    }


def _names(row: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """Return the distinct texts of the columns that say where a finding applies."""
    values: list[Any] = []
    for column in columns:
        value = row.get(column)
        values += value if isinstance(value, list) else [value]
    return list(dict.fromkeys(value for value in values if value and isinstance(value, str)))
