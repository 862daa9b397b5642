"""`perfkit alert`: what a capture shows goes to those who should know."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perfkit import units
from perfkit.cli import text
from perfkit.cli.options import (
    CapturePath,
    Duration,
    decided,
    filter_options,
    ledger_option,
    make_choice,
    make_filters,
    open_tables,
    rule_options,
)
from perfkit.errors import PerfkitError, UsageError

if TYPE_CHECKING:
    from perfkit.alert.deliver import Delivery
    from perfkit.alert.event import Alert
    from perfkit.analysis.filters import Filters
    from perfkit.analysis.session import Tables
    from perfkit.gate.budgets import Budget
    from perfkit.rules.choose import Choice

SEVERITIES = ("high", "medium", "low")
_COLOURS = {"high": "red", "medium": "yellow", "low": "cyan"}
EVERY = "60s"


@click.command(epilog="Example: perfkit alert slow.perfkit --to alertmanager://127.0.0.1:9093")
@click.argument("capture", type=CapturePath())
@click.option(
    "--to",
    "targets",
    multiple=True,
    metavar="TARGET",
    help="alertmanager://HOST:PORT (alertmanagers:// for TLS), a webhook https://…, or env:NAME "
    "for a URL in the environment. Without it the alerts are only listed.",
)
@click.option(
    "--severity",
    type=click.Choice(SEVERITIES),
    default="high",
    show_default=True,
    help="Findings of this severity or a higher one.",
)
@click.option(
    "--budget",
    "budget_texts",
    metavar="BUDGET",
    multiple=True,
    help="Also when this is breached, as in perfkit check: 'p95(endpoint=/search) < 300ms'.",
)
@click.option(
    "--template",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="JSON for a webhook, with $summary, $description, $severity … in it.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, dir_okay=False),
    help="What was said to whom.  [default: perfkit/alerts.json in $XDG_STATE_HOME]",
)
@click.option(
    "--watch",
    "every_ns",
    metavar="[TIME]",
    is_flag=False,
    flag_value=EVERY,
    type=Duration(),
    help=f"Again and again while it is being recorded; by default every {EVERY}.",
)
@click.option("--json", "as_json", is_flag=True, help="Write alerts and deliveries as JSON.")
@filter_options
@rule_options
@ledger_option
def command(
    capture: Path,
    targets: tuple[str, ...],
    severity: str,
    budget_texts: tuple[str, ...],
    template: Path | None,
    state: Path | None,
    every_ns: int | None,
    as_json: bool,
    ledger: Path | None,
    **options: Any,
) -> None:
    """Send what is wrong in CAPTURE to those who should know, once each, and when it is over.

    That are findings, endpoints that became slow or failed for a while, and breached budgets. What
    was said is kept in a file, so that a second run says only what is new and what is over. A
    target that is down gets what it missed with the next run; the exit code is 1 then.

    \b
    An Alertmanager     alertmanager://127.0.0.1:9093
    A webhook           https://hooks.internal/perf     token: $PERFKIT_WEBHOOK_TOKEN
    Slack, PagerDuty,   env:SLACK_URL                   a URL of Apprise, in the environment;
    e-mail …                                            needs perfkit[notify]
    """
    from perfkit.alert.targets import parse
    from perfkit.gate import budgets

    wording = template.read_text(encoding="utf-8") if template is not None else None
    known = [parse(one, wording) for one in dict.fromkeys(targets)]
    if template is not None and not known:
        raise UsageError("--template needs --to https://…")
    job = _Job(
        capture=capture,
        filters=make_filters(options),
        choice=make_choice(options),
        ledger=ledger,
        severity=severity,
        budgets=[budgets.parse(one) for one in budget_texts],
        state=state or _state(),
    )
    if every_ns is not None:
        _watch(job, known, every_ns / 1e9)
        return
    alerts, tables = job.look()
    deliveries = job.tell(known, alerts, tables)
    if as_json:
        data = {"alerts": list(map(asdict, alerts)), "deliveries": list(map(asdict, deliveries))}
        click.echo(json.dumps(data, indent=1, ensure_ascii=False))
    else:
        _show(alerts)
        _say(deliveries)
    _complain(deliveries, job.state)


@dataclass
class _Job:
    """Looking at a capture, and telling."""

    capture: Path
    filters: Filters
    choice: Choice
    ledger: Path | None
    severity: str
    budgets: list[Budget]
    state: Path

    def look(self) -> tuple[list[Alert], Tables]:
        from perfkit.alert.signals import active
        from perfkit.rules.choose import choose
        from perfkit.rules.evaluate import run

        tables = open_tables(self.capture, self.filters, live=True)
        outcomes, _ = decided(run(choose(self.choice), tables), tables, self.ledger)
        alerts = active(tables, outcomes, self.severity)
        return alerts + _breached(self.budgets, tables), tables

    def tell(self, targets: list[Any], alerts: list[Alert], tables: Tables) -> list[Delivery]:
        from perfkit.alert.deliver import deliver

        if not targets:
            return []
        services = tables.frame("facts")["services"].to_list()[0] or []
        # Alerts of one program on one machine: those of another are not over when it is well.
        source = " ".join([tables.capture.info.host or "", *sorted(services)])
        return deliver(alerts, targets, source, self.state)


def _breached(budgets: list[Budget], tables: Tables) -> list[Alert]:
    """Return the budgets that do not hold. Raises UsageError for one that matches nothing.

    While recording, what it is about may only come yet.
    """
    from perfkit.alert.event import Alert
    from perfkit.gate import judge

    begin_ns = tables.frame("facts")["start_ns"][0] or tables.capture.info.created_ns
    breached = []
    for budget in budgets:
        for check in judge.checks(budget, [tables]):
            if check.state == "error" and not tables.capture.living:
                raise UsageError(f"budget {budget.text!r} matches nothing", hint=check.help)
            if check.state == "failed":
                about = f" ({check.thing})" if check.thing else ""
                breached.append(
                    Alert(
                        fingerprint=check.fingerprint,
                        name="PerfkitBudget",
                        severity="high",
                        summary=text.plain(f"Budget breached: {budget.text}{about}"),
                        description=text.plain(check.message),
                        starts_ns=begin_ns,
                        labels={
                            "budget": text.plain(budget.text),
                            "thing": text.plain(check.thing),
                        },
                    )
                )
    return breached


def _watch(job: _Job, targets: list[Any], every_s: float) -> None:
    """Look until the recording ends. A target that is down is only complained of."""
    # The program that is recorded goes first.
    os.nice(10)
    deliveries: list[Delivery] = []
    try:
        while True:
            alerts, tables = job.look()
            deliveries = job.tell(targets, alerts, tables)
            if any(one.new or one.over or one.problem for one in deliveries):
                _say(deliveries)
            if not tables.capture.living:
                break
            _sleep(every_s, job.capture)
    except KeyboardInterrupt:
        click.echo(err=True)
    _complain(deliveries, job.state)


def _sleep(every_s: float, capture: Path) -> None:
    """Wait, but not beyond the end of the recording."""
    from perfkit.manifest import INFO_NAME, CaptureInfo

    end = time.monotonic() + every_s
    while time.monotonic() < end:
        time.sleep(min(1.0, every_s))
        if CaptureInfo.load(capture / INFO_NAME).finished_ns is not None:
            return


def _state() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "perfkit" / "alerts.json"


def _show(alerts: list[Alert]) -> None:
    if not alerts:
        click.echo("nothing to alert of")
    for alert in alerts:
        badge = click.style(alert.severity.upper(), fg=_COLOURS.get(alert.severity), bold=True)
        click.echo(f"{badge}  {click.style(text.plain(alert.summary), bold=True)}")
        text.paragraph(alert.description, indent=4)


def _say(deliveries: list[Delivery]) -> None:
    for one in deliveries:
        counts = f"{one.new} new, {one.over} over, {one.going_on} going on"
        if one.problem is not None:
            counts += f"; {text.plain(one.problem)}"
        click.echo(f"{one.target}: {counts}", err=True)
        if one.dropped:
            click.echo(f"  dropped: {units.number(one.dropped)} events, the oldest", err=True)


def _complain(deliveries: list[Delivery], state: Path) -> None:
    """Raise an error when a target did not take what it was sent."""
    failed = [one for one in deliveries if one.problem is not None]
    if failed:
        waiting = sum(one.waiting for one in failed)
        raise PerfkitError(
            "; ".join(str(one.problem) for one in failed),
            hint=f"nothing is lost: {waiting} wait in {state} for the next run",
        )
