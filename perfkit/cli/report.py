"""`perfkit report`: a capture becomes one self-contained HTML file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perfkit import units
from perfkit.cli import text
from perfkit.cli.options import (
    filter_options,
    make_choice,
    make_filters,
    open_tables,
    rule_options,
)
from perfkit.cli.progress import Progress
from perfkit.errors import UsageError

if TYPE_CHECKING:
    from perfkit.rules.model import Outcome


@click.command(epilog="Example: perfkit report slow.perfkit -o slow.html --endpoint /tools/invoke")
@click.argument("capture", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The HTML file to write; beside the capture, with its name, when not given.",
)
@click.option("--title", help="Heading of the report; the capture's name when not given.")
@filter_options
@rule_options
def command(capture: Path, output: Path | None, title: str | None, **options: Any) -> None:
    """Write the report of CAPTURE as one HTML file that needs no network and no server.

    It says what is wrong and what to do first, and shows flame graphs of requests and of code, slow
    requests and queries, load over time, and what the capture lacks.
    """
    choice = make_choice(options)
    tables = open_tables(capture, make_filters(options))
    name = capture.resolve().name.removesuffix(".perfkit") or "report"
    target = output if output is not None else capture.resolve().with_name(f"{name}.html")
    check_writable(target)
    with Progress() as progress:
        progress.show("looking for problems", force=True)
        from perfkit.rules.choose import choose
        from perfkit.rules.evaluate import run

        outcomes = run(choose(choice), tables)
        progress.show("drawing the report", force=True)
        from perfkit.report.render import build

        page = build(tables, outcomes, title=title or name)
        size = write(target, page.html)
    for line in page.failed:
        click.echo(f"perfkit: warning: {text.plain(line)}", err=True)
    click.echo(_first_words(outcomes), err=True)
    click.echo(f"{target} ({units.size(size)})")


def check_writable(target: Path) -> None:
    """Find out before the long work whether `target` can be written. Raises UsageError or OSError.

    Nothing is changed: an old report stays whole until the new one is complete.
    """
    if target.is_dir():
        raise UsageError(f"{target}: is a directory", hint="give the name of a file with -o")
    if target.exists():
        if not os.access(target, os.W_OK):
            raise UsageError(f"{target}: cannot be written", hint="choose another name with -o")
        if not target.is_file():
            return
    folder = target.parent
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such directory", hint=f"make it: mkdir -p {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{folder}: cannot be written", hint="choose another place with -o")


def write(target: Path, html: str) -> int:
    """Write the report, whole or not at all; returns its size in bytes."""
    from perfkit.capture import atomic_write

    content = html.encode("utf-8", "replace")
    if target.exists() and not target.is_file():  # /dev/stdout or a pipe cannot be renamed over
        target.write_bytes(content)
    else:
        with atomic_write(target) as file:
            file.write(content)
    return len(content)


def _first_words(outcomes: list[Outcome]) -> str:
    from perfkit.rules.evaluate import findings

    found = findings(outcomes)
    if not found:
        return "No problem found."
    first = found[0]
    return f"{first.severity}: {text.plain(first.title)}. {text.plain(first.message)}"
