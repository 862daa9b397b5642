"""`perfkit show`: the report in the terminal, in the order in which an engineer asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perfkit import units
from perfkit.cli import text
from perfkit.cli.data import jsonable
from perfkit.cli.options import (
    CapturePath,
    Duration,
    decided,
    engine_option,
    filter_options,
    ledger_option,
    make_choice,
    make_filters,
    open_tables,
    rule_options,
)

if TYPE_CHECKING:
    import polars as pl

    from perfkit.analysis.session import Tables
    from perfkit.rules.choose import Choice
    from perfkit.rules.model import Finding, Followed, Outcome
    from perfkit.rules.plan import Plan

_SEVERITY_COLOURS = {"high": "red", "medium": "yellow", "low": "cyan", "info": None}
_TOP = 10
_MOST_IN_JSON = 100
_ENDPOINTS = 5
"""Of so many endpoints it is told what their slow, or failed, requests have in common, and which
had not ended."""
_SHOWN_LEVELS = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_WORTH_CHOOSING = 2
"""A single thing to do is no choice."""


@click.command(
    epilog="Example: perfkit show slow.perfkit --endpoint /tools/invoke --min-duration 500ms"
)
@click.argument("capture", type=CapturePath())
@filter_options
@rule_options
@ledger_option
@engine_option
@click.option("--json", "as_json", is_flag=True, help="Write the same answers as JSON.")
@click.option(
    "--watch",
    "every_ns",
    metavar="[TIME]",
    is_flag=False,
    flag_value="2s",
    type=Duration(),
    help="Again and again while it is being recorded; by default every 2s.",
)
def command(
    capture: Path,
    as_json: bool,
    ledger: Path | None,
    engine: str,
    every_ns: int | None,
    **options: Any,
) -> None:
    """Say what is wrong in CAPTURE and what to do first, then show where the time went.

    A recording that goes on may be looked at too, once or with --watch; ^C ends only the looking.
    """
    choice, filters = make_choice(options), make_filters(options)

    def look() -> bool:
        tables = open_tables(capture, filters, engine, live=True)
        _show(tables, choice, ledger, as_json)
        return tables.capture.living

    if every_ns is None:
        look()
    else:
        from perfkit.cli.watch import watch

        watch(look, every_ns / 1e9)


def _show(tables: Tables, choice: Choice, ledger: Path | None, as_json: bool) -> None:
    from perfkit.rules.choose import choose
    from perfkit.rules.evaluate import run

    outcomes, followed = decided(run(choose(choice), tables), tables, ledger)
    if as_json:
        click.echo(json.dumps(_as_data(tables, outcomes, followed), indent=1, ensure_ascii=False))
        return
    _show_head(tables)
    from perfkit.rules.plan import plan

    chosen = plan(outcomes, tables)
    _show_findings(outcomes, chosen)
    _show_plan(chosen)
    _show_followed(followed)
    for title, table, columns in _TABLES:
        _show_table(tables, title, table, columns)
        if table == "endpoints":
            _say_open(tables.frame("open_requests"))
            _show_traits(tables)
    _show_health(tables, outcomes)
    click.echo()
    click.echo(f"All of it, with flame graphs: perfkit report {tables.capture.path}")


def _facts(tables: Tables) -> dict[str, Any]:
    return tables.frame("facts").row(0, named=True)


def _show_head(tables: Tables) -> None:
    from perfkit.rules.messages import shorten

    facts = _facts(tables)
    info = tables.capture.info
    when = f"{units.duration(facts['duration_ns'])} from {units.timestamp(facts['start_ns'])}"
    name = text.plain(tables.capture.path.name)
    click.secho(f"{name}: {when}" if facts["start_ns"] is not None else name, bold=True)
    services = ", ".join(shorten(name, 60) for name in facts["services"] or [])
    seen = [
        f"{units.number(facts['entries'])} requests" if facts["entries"] else "",
        f"{units.number(facts['spans'])} spans" if facts["spans"] else "",
        f"{units.duration(facts['sampled_ns'])} of stacks" if facts["sampled_ns"] else "",
        f"{units.number(facts['samples'])} stack samples"
        if facts["samples"] and not facts["sampled_ns"]
        else "",
        f"{units.number(facts['metric_points'])} metric points" if facts["metric_points"] else "",
        f"host {info.host}" if info.host else "",
        f"services {services}" if services else "",
    ]
    text.paragraph("; ".join(part for part in seen if part) or "The capture is empty.")


def _show_findings(outcomes: list[Outcome], chosen: Plan) -> None:
    from perfkit.rules.evaluate import dismissed, findings, nothing_found

    found = findings(outcomes)
    number_of = {finding.fingerprint: number for number, finding in enumerate(found, 1)}
    text.heading("What to do first")
    if not found:
        text.paragraph(nothing_found(outcomes))
    for one in dismissed(outcomes):
        note = one.decision.note if one.decision else ""
        text.paragraph(f"dismissed: {one.title}: {note}", indent=4)
    for number, finding in enumerate(found[:_TOP], 1):
        _show_finding(number, finding)
        if covering := chosen.covered.get(finding.fingerprint):
            text.paragraph(f"Mostly the same time as {number_of[covering]} saves.", indent=4)
    if len(found) > _TOP:
        click.echo(f"   … and {len(found) - _TOP} more in the report")


def _show_plan(chosen: Plan) -> None:
    if len(chosen.steps) < _WORTH_CHOOSING or not chosen.together:
        return
    text.heading("If you do only these")
    for number, step in enumerate(chosen.steps, 1):
        gain = step.words() or step.finding.risk or ""
        text.paragraph(f"{number}. {step.finding.title} ({gain})", indent=1)
    text.paragraph(chosen.words(), indent=4)


def _show_followed(followed: list[Followed]) -> None:
    if not followed:
        return
    text.heading("What was done, and what came of it")
    for one in followed:
        text.paragraph(f"{one.title}: {one.words} ({one.by}, {units.timestamp(one.at_ns)[:10]})")


def _show_finding(number: int, finding: Finding) -> None:
    badge = click.style(finding.severity.upper(), fg=_SEVERITY_COLOURS[finding.severity], bold=True)
    lead = f"{number:2d}. {finding.severity.upper()}  "
    first, *rest = text.folded(finding.title, len(lead))
    click.echo(f"{number:2d}. {badge}  {click.style(first, bold=True)}")
    for line in rest:
        click.echo(f"    {click.style(line, bold=True)}")
    text.paragraph(finding.message, indent=4)
    estimate = []
    if finding.impact_high_ratio:
        low = finding.impact_low_ratio or 0.0
        estimate.append(f"saves {units.percent_range(low, finding.impact_high_ratio)} of all time")
    if finding.risk:
        estimate.append(text.plain(finding.risk))
    estimate.append(f"effort {finding.effort}")
    if finding.decision is not None:
        decision = finding.decision
        note = f": {text.plain(decision.note)}" if decision.note else ""
        estimate.append(f"{decision.status} by {text.plain(decision.by)}{note}")
    text.paragraph(f"How: {finding.fix['summary']} ({', '.join(estimate)})", indent=4)


Column = tuple[str, str, str]
"""Heading, column of the table, how to write it."""

_LATENCY: list[Column] = [
    ("count", "requests", "number"),
    ("err", "error_ratio", "percent"),
    ("share", "share_ratio", "percent"),
    ("p50", "p50_ns", "duration"),
    ("p95", "p95_ns", "duration"),
    ("p99", "p99_ns", "duration"),
]
_TABLES: list[tuple[str, str, list[Column]]] = [
    ("Endpoints, by total time", "endpoints", [("endpoint", "endpoint", "text"), *_LATENCY]),
    ("Tools, by total time", "tools", [("tool", "tool", "text"), *_LATENCY]),
    (
        "Where requests spend their time (critical path)",
        "operations",
        [
            ("operation", "name", "text"),
            ("share", "critical_ratio", "percent"),
            ("count", "count", "number"),
            ("self", "self_ns", "duration"),
            ("p95", "p95_ns", "duration"),
            ("err", "error_ratio", "percent"),
            ("category", "category", "text"),
        ],
    ),
    (
        "Queries, by total time",
        "queries",
        [
            ("query", "statement", "text"),
            ("share", "share_ratio", "percent"),
            ("calls", "calls", "number"),
            ("mean", "mean_ns", "duration"),
            ("p95", "p95_ns", "duration"),
            ("most/req", "max_repeats", "number"),
        ],
    ),
    (
        "Code, by running time of its own",
        "functions",
        [
            ("function", "function", "text"),
            ("self", "running_self_ns", "duration"),
            ("wall", "self_ns", "duration"),
            ("total", "total_ns", "duration"),
            ("where", "module", "text"),
        ],
    ),
]
_COUNTED: list[Column] = [
    ("function", "function", "text"),
    ("self", "self_ratio", "percent"),
    ("total", "total_ratio", "percent"),
    ("samples", "samples", "number"),
    ("where", "module", "text"),
]
"""Of functions whose samples are only counts."""
_ORDER = {
    "endpoints": "total_ns",
    "tools": "total_ns",
    "operations": "critical_ns",
    "queries": "total_ns",
    "functions": "running_self_ns",
}


def _show_table(tables: Tables, title: str, name: str, columns: list[Column]) -> None:
    top = _largest_first(tables, name).head(_TOP)
    if top.is_empty():
        return
    if "service" in top.columns and len(_facts(tables)["services"] or []) > 1:
        columns = [*columns, ("service", "service", "text")]
    if name == "functions" and top["self_ns"].null_count() == top.height:
        title, columns = "Code, by samples of its own", _COUNTED
    text.heading(title)
    text.table(
        [heading for heading, _, _ in columns],
        [[_cell(row[column], how) for _, column, how in columns] for row in top.to_dicts()],
    )
    if name == "functions":
        _say_woken(tables.frame(name))


def _say_open(found: pl.DataFrame) -> None:
    """Say which requests had not ended, and what that means for the percentiles above."""
    for row in found.head(_ENDPOINTS).to_dicts():
        count = f"{units.number(row['open'])} of {units.number(row['requests'])}"
        bounds = [name for name, level in _SHOWN_LEVELS.items() if level > row["sure_level"]]
        unsure = f"; {', '.join(bounds)}: lower bounds" if bounds else ""
        text.paragraph(
            f"Not ended: {count} requests to {text.shorten(row['endpoint'], 60)}, the oldest began "
            f"{units.duration(row['oldest_ns'])} before the end{unsure}."
        )
    if found.height > _ENDPOINTS:
        click.echo(f"… and such requests to {found.height - _ENDPOINTS} endpoints more")


def _show_traits(tables: Tables) -> None:
    """Say what sets slow requests apart from typical ones, and failed ones from the others."""
    from perfkit.analysis.comparison.trait_words import sentences

    said = sentences(tables.frame("slow_traits"), tables.frame("failure_traits"), _ENDPOINTS)
    if said:
        text.heading("What slow and failed requests have in common")
    for one in said:
        text.paragraph(f"- {one}")


def _say_woken(functions: pl.DataFrame) -> None:
    """Say how much of the running time was threads waking up at a wait."""
    woken = int(functions["woken_self_ns"].sum())
    running = int(functions["running_self_ns"].sum()) + woken
    if woken:
        most = functions.sort("woken_self_ns", descending=True)["function"][0]
        text.paragraph(
            f"Set apart: {units.percent(woken / running)} of CPU time, which threads used that "
            "were seen waiting: they woke up, or ran in code that no look saw (most of it in "
            f"{text.shorten(most, 60)})."
        )


def _largest_first(tables: Tables, name: str) -> pl.DataFrame:
    """Return a table, the largest share first."""
    frame = tables.frame(name)
    column = _ORDER[name]
    if name == "functions" and not frame[column].sum():
        # Nobody recorded whether threads ran: what is left is wall time, or plain counts.
        column = "self_ns" if frame["self_ns"].sum() else "samples"
    return frame.sort(column, descending=True, nulls_last=True)


def _cell(value: Any, how: str) -> str:
    writers = {"number": units.number, "percent": units.percent, "duration": units.duration}
    if value is None:
        return units.MISSING
    return writers[how](value) if how in writers else text.shorten(value, 200)


def _show_health(tables: Tables, outcomes: list[Outcome]) -> None:
    from perfkit.report import weaknesses

    info = tables.capture.info
    remarks = [f"{units.number(loss.count)} × {loss.what}: {loss.why}" for loss in info.lost]
    remarks += info.notes
    if tables.capture.living:
        remarks.append("still being recorded; the stacks of the last half minute are not in it yet")
    elif not tables.capture.finished:
        remarks.append("the recording was not ended in an orderly way; its last seconds may lack")
    remarks += [what.rstrip(".") for what, _ in weaknesses.of_data(tables)]
    remarks += [
        f"rule {outcome.rule.id} failed: {outcome.reason}"
        for outcome in outcomes
        if outcome.state == "error"
    ]
    skipped = sum(outcome.state == "not_applicable" for outcome in outcomes)
    silenced = [outcome.rule.id for outcome in outcomes if outcome.state == "silenced"]
    if silenced:
        remarks.append(f"silenced: {', '.join(silenced)}")
    if skipped:
        remarks.append(f"{skipped} rules had nothing to look at (details in the report)")
    if remarks:
        text.heading("Capture health")
        for remark in remarks:
            text.paragraph(f"- {remark}")


def _as_data(tables: Tables, outcomes: list[Outcome], followed: list[Followed]) -> dict[str, Any]:
    from dataclasses import asdict

    from perfkit.report import weaknesses
    from perfkit.rules.evaluate import dismissed, findings
    from perfkit.rules.plan import plan

    chosen = plan(outcomes, tables)
    data: dict[str, Any] = {
        "capture": str(tables.capture.path),
        "facts": _facts(tables),
        "findings": [asdict(finding) for finding in findings(outcomes)],
        "plan": {
            "steps": [
                {
                    "fingerprint": step.finding.fingerprint,
                    "saved_low_ratio": step.saved_low_ratio,
                    "saved_high_ratio": step.saved_high_ratio,
                    "replayed": step.replayed,
                }
                for step in chosen.steps
            ],
            "covered": chosen.covered,
            "together": chosen.together,
        },
        "dismissed": [asdict(finding) for finding in dismissed(outcomes)],
        "followed": [asdict(one) for one in followed],
        "rules": {outcome.rule.id: outcome.state for outcome in outcomes},
        "health": {
            "finished": tables.capture.finished,
            "lost": [asdict(loss) for loss in tables.capture.info.lost],
            "notes": tables.capture.info.notes,
            "weak": [
                {"what": what, "meaning": meaning} for what, meaning in weaknesses.of_data(tables)
            ],
        },
    }
    for _, name, _ in _TABLES:
        data[name] = _largest_first(tables, name).head(_MOST_IN_JSON).to_dicts()
    for name in ("open_requests", "slow_traits", "failure_traits"):
        data[name] = tables.frame(name).head(_MOST_IN_JSON).to_dicts()
    return {key: jsonable(value) for key, value in data.items()}
