"""`perfkit import`: files that other tools wrote, to one capture."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perfkit import units
from perfkit.cli.options import Moment
from perfkit.cli.progress import Progress
from perfkit.cli.text import plain
from perfkit.errors import CaptureError
from perfkit.scratch import Scratch

if TYPE_CHECKING:
    from perfkit.capture import CaptureInfo

_FIRST_ESTIMATE_S = 2.0
_DATABASE = re.compile("postgres(ql)?://")
# A test compares this with the importers, which are not loaded for the help.
_FORMATS = (
    "otlp-json, otlp-protobuf, otlp-frames, jaeger-json, zipkin-json, xray-json, datadog-json, "
    "sentry-json, skywalking-json, chrome-trace, mcp-gateway-db, request-records, "
    "pyspy-chrometrace, speedscope, collapsed, pprof, pyinstrument, cprofile, austin, "
    "perf-script, cpuprofile, prometheus-json, openmetrics, psutil-jsonl, psutil-csv, "
    "pg-stat-statements, postgresql-log, access-log, locust, k6-json, jmeter"
)


@click.command(epilog="Example: perfkit import traces.json profile.json gateway.db -o slow.perfkit")
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="The capture to write, NAME.perfkit.",
)
@click.option(
    "--format",
    "format_name",
    help=f"The format, when it is not to be recognised: {_FORMATS}.",
)
@click.option(
    "--started-at",
    "started_at_ns",
    type=Moment(),
    help="When a file begins that has no wall-clock times (py-spy's, request records).",
)
@click.option(
    "--keep-going",
    is_flag=True,
    help="Pass over damaged records, keep what was read of a damaged file, and go on.",
)
@click.option(
    "--map",
    "columns",
    metavar="TARGET=COLUMN[:UNIT],…",
    help="Read CSV, JSON lines or Parquet with these columns as spans, samples or metrics, say "
    "trace_id=TraceID,span_id=SpanID,name=Name,start_ns=Start:ms,duration_ns=Took:ms; units are s, "
    "ms, us, ns; of values of metrics also %, 1, B, kB, MB, GB, KiB, MiB, GiB. In "
    "perfkit.yaml it is remembered.",
)
def command(
    files: tuple[str, ...],
    output: Path,
    format_name: str | None,
    started_at_ns: int | None,
    keep_going: bool,
    columns: str | None,
) -> None:
    """Make one capture from FILES that other tools wrote.

    FILES are files, directories, patterns in quotes, zip and tar archives, or - for standard input.
    A URL postgresql://USER@HOST/DATABASE reads pg_stat_statements and the MCP gateway's tables live
    (needs perfkit[postgresql]; the password is taken from PGPASSWORD or ~/.pgpass).

    The format is recognised by the content, compressed (gzip, zstd, bzip2, xz) or not;
    docs/import.md lists the formats and how to make such files.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise CaptureError(
            f"{output}: already exists", hint="choose another name with -o, or remove it"
        )
    from perfkit.capture import CaptureWriter
    from perfkit.importers import import_files, mapped

    # Written beside its place and moved there when it is whole, so that a failure leaves nothing.
    output.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with Scratch(output.parent) as folder:
        temporary = folder / output.name
        with Progress() as progress, CaptureWriter(temporary) as writer:
            import_files(
                [Path(file) for file in files if not _DATABASE.match(file)],
                writer,
                format=format_name,
                started_at_ns=started_at_ns,
                progress=lambda name, share: progress.show(_estimate(name, share, began)),
                keep_going=keep_going,
                mapping=None if columns is None else mapped.parse(columns),
                databases=[file for file in files if _DATABASE.match(file)],
            )
        temporary.replace(output)
    _say(output, writer.info)


def _estimate(name: str, share: float, began: float) -> str:
    """Say how far an import is, and how long the rest will take at this pace."""
    elapsed = time.monotonic() - began
    text = f"importing {plain(name)}: {share:.0%}"
    if elapsed > _FIRST_ESTIMATE_S and share > 0:
        text += f", about {units.duration(elapsed * (1 - share) / share * 1e9)} left"
    return text


def _say(output: Path, info: CaptureInfo) -> None:
    from perfkit.model import TABLES

    counts = [(table.name, info.rows.get(table.name, 0)) for table in TABLES]
    rows = ", ".join(f"{units.number(count)} {name}" for name, count in counts if count)
    click.echo(f"{output}: {rows}", err=True)
    for loss in info.lost:
        click.echo(f"  left out: {units.number(loss.count)} {loss.what}: {loss.why}", err=True)
    for note in info.notes:
        click.echo(f"  note: {note}", err=True)
