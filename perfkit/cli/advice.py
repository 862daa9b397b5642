"""`perfkit advice`: the status of recommendations, and what came of those that were followed."""

from __future__ import annotations

import datetime as dt
import getpass
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perfkit import units
from perfkit.cli import text
from perfkit.cli.options import CapturePath, ledger_option, make_choice, open_tables, rule_options
from perfkit.errors import UsageError

if TYPE_CHECKING:
    from perfkit.advice.entry import Entry
    from perfkit.analysis.session import Tables
    from perfkit.rules.model import AdviceStatus, Finding, Outcome

_CAPTURE = click.argument("capture", type=CapturePath(), required=False)
_NAME = click.argument("name", metavar="FINGERPRINT")
_BY = click.option("--by", help="Who decides.  [default: the name of the user]")


@click.group()
def command() -> None:
    """Keep the status of recommendations, and measure what came of them.

    FINGERPRINT is what the report and `perfkit advice list CAPTURE` show (its beginning is enough),
    or the id of a rule that found one thing. The ledger is perfkit-advice.yaml, here or above.
    """


@command.command("list", epilog="Example: perfkit advice list slow.perfkit")
@_CAPTURE
@ledger_option
@rule_options
@click.option("--json", "as_json", is_flag=True, help="Write the list as JSON.")
def list_(capture: Path | None, ledger: Path | None, as_json: bool, **options: Any) -> None:
    """List the recommendations for CAPTURE with their status, then what else the ledger holds."""
    from perfkit.advice import decide

    entries = _load(ledger)
    tables, outcomes = _look(capture, options) if capture else (None, [])
    today = dt.datetime.now(dt.UTC).date()
    found = decide.all_findings(
        decide.applied(outcomes, entries, tables, today) if tables else outcomes
    )
    seen = {finding.fingerprint for finding in found}
    rest = [entry for name, entry in entries.items() if name not in seen]
    if as_json:
        data = {"findings": [asdict(one) for one in found], "ledger": [asdict(one) for one in rest]}
        click.echo(json.dumps(data, indent=1, ensure_ascii=False, default=str))
        return
    rows = [_finding_row(one) for one in found] + [_entry_row(one) for one in rest]
    if not rows:
        click.echo("No recommendations, and nothing in the ledger.", err=True)
        return
    text.table(["recommendation", "status", "severity", "fingerprint"], rows)


def _finding_row(finding: Finding) -> list[str]:
    status = finding.decision.status if finding.decision else "open"
    return [finding.title, status, finding.severity, finding.fingerprint]


def _entry_row(entry: Entry) -> list[str]:
    return [entry.title, entry.status, "not found", entry.fingerprint]


@command.command(epilog="Example: perfkit advice show 3f2a9c")
@_NAME
@ledger_option
def show(name: str, ledger: Path | None) -> None:
    """Say what the ledger knows about one recommendation."""
    from perfkit.advice import decide

    entries = _load(ledger)
    entry = entries[decide.find(name, [], entries)]
    click.secho(f"{entry.fingerprint}  {text.plain(entry.title)}", bold=True)
    text.paragraph(
        f"{entry.status}, {units.timestamp(entry.at_ns)} by {entry.by}; rule {entry.rule}"
    )
    if entry.reason:
        text.paragraph(f"Reason: {entry.reason}")
    if entry.until:
        text.paragraph(f"Until: {entry.until}")
    if entry.predicted_ns:
        low, high = (units.duration(one) for one in entry.predicted_ns)
        text.paragraph(f"Predicted: {low} to {high} less for each request concerned")
    if entry.before:
        text.heading("Before")
        for one in entry.before.strata:
            where = " ".join(part for part in (one.endpoint, one.tool) if part) or "all requests"
            text.paragraph(
                f"{where}: {one.requests:,} requests, {units.duration(one.mean_ns)} each"
            )
    for one_measured in entry.measured:
        text.heading(f"Measured, {units.timestamp(one_measured.at_ns)}")
        text.paragraph(decide.in_words(one_measured, entry))


@command.command(epilog="Example: perfkit advice accept 3f2a9c slow.perfkit --by alice")
@_NAME
@_CAPTURE
@_BY
@ledger_option
@rule_options
def accept(name: str, **options: Any) -> None:
    """Take a recommendation on: it is going to be followed."""
    _decide("accepted", name, options)


@command.command(
    epilog="Example: perfkit advice dismiss 3f2a9c slow.perfkit "
    '--reason "a nightly report" --until 2027-06-30'
)
@_NAME
@_CAPTURE
@click.option("--reason", required=True, help="Why it is left as it is.")
@click.option("--until", default="", help="Last day on which that holds, as 2027-06-30.")
@_BY
@ledger_option
@rule_options
def dismiss(name: str, **options: Any) -> None:
    """Leave it as it is, with a reason; it no longer counts, and is listed as dismissed."""
    from perfkit.advice.ledger import day

    if not options["reason"].strip():
        raise UsageError("a dismissal needs a reason", hint='write --reason "why it is left so"')
    if options["until"] and day(options["until"]) < dt.datetime.now(dt.UTC).date():
        raise UsageError(
            f"--until {options['until']} is over", hint="name the last day on which it holds"
        )
    _decide("dismissed", name, options)


@command.command(epilog="Example: perfkit advice done 3f2a9c")
@_NAME
@_CAPTURE
@_BY
@ledger_option
@rule_options
def done(name: str, **options: Any) -> None:
    """Say that a recommendation was followed; CAPTURE is one from before, if none was named yet.

    The next capture tells whether it worked: perfkit advice verify NEXT.
    """
    entry = _decide("done", name, options)
    if entry.before is None:
        click.echo(
            "perfkit: warning: no capture from before: whether it is gone will be known, "
            "what it saved will not",
            err=True,
        )


@command.command(epilog="Example: perfkit advice reopen 3f2a9c")
@_NAME
@_CAPTURE
@_BY
@ledger_option
@rule_options
def reopen(name: str, **options: Any) -> None:
    """Open a recommendation again."""
    _decide("open", name, options)


@command.command(epilog="Example: perfkit advice verify after.perfkit")
@click.argument("capture", type=CapturePath())
@ledger_option
@rule_options
@click.option("--json", "as_json", is_flag=True, help="Write the measurements as JSON.")
def verify(capture: Path, ledger: Path | None, as_json: bool, **options: Any) -> None:
    """Measure in CAPTURE what came of the recommendations that were done before it.

    Predicted against measured, on each request, with its uncertainty; what is back is opened again.
    """
    from perfkit.advice import decide
    from perfkit.advice.ledger import update

    tables, outcomes = _look(capture, options)
    path = _path(ledger)
    measured = decide.verified(_load(ledger), outcomes, tables)

    def change(entries: dict[str, Entry]) -> None:
        for name in measured.keys() & entries.keys():
            entries[name] = decide.after_measuring(entries[name], measured[name])

    entries = update(path, change) if measured else {}
    if as_json:
        click.echo(
            json.dumps({name: asdict(one) for name, one in measured.items()}, indent=1, default=str)
        )
        return
    for name, one in measured.items():
        click.secho(f"{name}  {text.plain(entries[name].title)}", bold=True)
        text.paragraph(decide.in_words(one, entries[name]), indent=2)
    if not measured:
        click.echo("Nothing to measure: no recommendation was done before this capture.", err=True)


def _decide(status: AdviceStatus, name: str, options: dict[str, Any]) -> Entry:
    """Write a decision into the ledger and say so; returns the new entry."""
    from perfkit.advice import decide
    from perfkit.advice.ledger import update

    capture, path = options.pop("capture"), _path(options.pop("ledger"))
    by = options.pop("by") or _user()
    reason, until = options.pop("reason", ""), options.pop("until", "")
    tables, outcomes = _look(capture, options) if capture else (None, [])
    found = {one.fingerprint: one for one in decide.all_findings(outcomes)}
    made: list[Entry] = []

    def change(entries: dict[str, Entry]) -> None:
        fingerprint = decide.find(name, found.values(), entries)
        entry = decide.decided(
            found.get(fingerprint),
            entries.get(fingerprint),
            status,
            by=by,
            at_ns=time.time_ns(),
            reason=reason,
            until=until,
            tables=tables,
        )
        entries[fingerprint] = entry
        made.append(entry)

    update(path, change)
    click.echo(f"{made[0].fingerprint} is {status}: {text.plain(made[0].title)} ({path})", err=True)
    return made[0]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an id without a name, as in many containers
        return "unknown"


def _path(ledger: Path | None) -> Path:
    from perfkit.advice.ledger import find

    return ledger if ledger is not None else find(Path.cwd())


def _load(ledger: Path | None) -> dict[str, Entry]:
    from perfkit.advice.ledger import load

    return load(_path(ledger))


def _look(capture: Path, options: dict[str, Any]) -> tuple[Tables, list[Outcome]]:
    from perfkit.analysis.filters import Filters
    from perfkit.rules.choose import choose
    from perfkit.rules.evaluate import run

    tables = open_tables(capture, Filters())
    return tables, run(choose(make_choice(options)), tables)
