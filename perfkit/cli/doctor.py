"""`perfkit doctor`: can this machine record, and if not, what mends it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perfkit.cli import text
from perfkit.cli.record import DEFAULT_OTLP

if TYPE_CHECKING:
    from perfkit.collect.checks import Check

_MARKS = {"ok": "ok     ", "warning": "WARNING", "failed": "FAILED "}
_MOST_SHOWN = 200
"""Characters of what a check says; the command line of a process may be endless."""
_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}


@click.command(epilog="Example: perfkit doctor --pid 1234")
@click.option("--pid", type=click.IntRange(min=1), help="Also check whether this can be recorded.")
@click.option(
    "--otlp", metavar="HOST:PORT", default=DEFAULT_OTLP, help="Where to listen.", show_default=True
)
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
def command(pid: int | None, otlp: str, as_json: bool) -> None:
    """Check whether this machine can record a process, and how to mend it if not.

    Exit status 1 when a recording cannot work.
    """
    from perfkit.collect import checks
    from perfkit.collect.otlp import DEFAULT_HOST, GRPC_PORT, parse_address

    done = checks.machine_checks()
    if pid is not None:
        done += checks.process_checks(pid)
    done.append(checks.endpoint_check(*parse_address(otlp)))
    if find_spec("grpc"):
        done.append(checks.endpoint_check(DEFAULT_HOST, GRPC_PORT, "otlp-grpc"))
    done.append(checks.disk_check(Path.cwd()))
    if as_json:
        click.echo(json.dumps([asdict(check) for check in done], indent=1))
    else:
        for check in done:
            _show(check)
    if any(check.state == "failed" for check in done):
        sys.exit(1)


def _show(check: Check) -> None:
    mark = click.style(_MARKS[check.state], fg=_COLOURS[check.state])
    click.echo(f"{mark}  {check.name}: {text.shorten(check.detail, _MOST_SHOWN)}")
    if check.fix:
        click.echo(f"         what to do: {text.plain(check.fix)}")
