"""`perfkit report`: a capture becomes one self-contained HTML file."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perfkit import units
from perfkit.cli import text
from perfkit.cli.files import check_writable, write_whole
from perfkit.cli.options import (
    CapturePath,
    decided,
    engine_option,
    filter_options,
    ledger_option,
    make_choice,
    make_filters,
    make_redaction,
    open_tables,
    redact_options,
    rule_options,
)
from perfkit.cli.progress import Progress
from perfkit.errors import UsageError

if TYPE_CHECKING:
    from perfkit.rules.model import Outcome


@click.command(epilog="Example: perfkit report slow.perfkit -o slow.html --endpoint /tools/invoke")
@click.argument("capture", type=CapturePath())
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The HTML file to write; beside the capture, with its name, when not given.",
)
@click.option(
    "--baseline",
    "baselines",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A capture to compare with; several give a surer answer.",
)
@click.option(
    "--again",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Another run of what CAPTURE shows: counts in the comparison only.",
)
@click.option("--title", help="Heading of the report; the capture's name when not given.")
@filter_options
@rule_options
@ledger_option
@engine_option
@redact_options
def command(
    capture: Path,
    output: Path | None,
    title: str | None,
    ledger: Path | None,
    engine: str,
    baselines: tuple[Path, ...],
    again: tuple[Path, ...],
    **options: Any,
) -> None:
    """Write the report of CAPTURE as one HTML file that needs no network and no server.

    It says what is wrong and what to do first, and shows flame graphs of requests and of code, slow
    requests and queries, load over time, and what the capture lacks. With --baseline it also shows
    what changed since that capture, how sure that is, and difference flame graphs.

    What looks like a token or a password is masked always. With --redact, other values of
    attributes, literals in queries, hosts and paths are replaced too, each by a pseudonym that is
    the same for the same value within this report only; names of services, endpoints, tools, spans
    and functions stay.
    """
    redaction = make_redaction(options)
    choice = make_choice(options)
    filters = make_filters(options)
    if again and not baselines:
        raise UsageError("--again is for a comparison", hint="say with what: --baseline CAPTURE")
    key = secrets.token_bytes(32)
    tables = open_tables(capture, filters, engine, redaction, key)
    sides = [
        [open_tables(path, filters, "whole", redaction, key) for path in side]
        for side in (baselines, again)
    ]
    name = capture.resolve().name.removesuffix(".perfkit") or "report"
    target = output if output is not None else _beside(capture) / f"{name}.html"
    check_writable(target)
    with Progress() as progress:
        progress.show("looking for problems", force=True)
        from perfkit.rules.choose import choose
        from perfkit.rules.evaluate import run

        outcomes, followed = decided(run(choose(choice), tables), tables, ledger)
        progress.show("drawing the report", force=True)
        from perfkit.report import baseline
        from perfkit.report.render import build

        compared = baseline.read(sides[0], [tables, *sides[1]]) if baselines else None
        page = build(tables, outcomes, title=title or name, followed=followed, baseline=compared)
        size = write_whole(target, page.html.encode("utf-8", "replace"))
    for line in page.failed:
        click.echo(f"perfkit: warning: {text.plain(line)}", err=True)
    click.echo(_first_words(outcomes), err=True)
    click.echo(f"{target} ({units.size(size)})")


def _beside(capture: Path) -> Path:
    """Return where a capture is, or the working directory when it is in object storage."""
    from perfkit.remote import url_of

    return Path() if url_of(capture) else capture.resolve().parent


def _first_words(outcomes: list[Outcome]) -> str:
    from perfkit.rules.evaluate import findings, nothing_found

    found = findings(outcomes)
    if not found:
        return nothing_found(outcomes)
    first = found[0]
    return f"{first.severity}: {text.plain(first.title)}. {text.plain(first.message)}"
