"""`perfkit export`: a capture in the formats of other tools."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perfkit import units
from perfkit.cli.files import check_writable, write_pieces
from perfkit.cli.options import CapturePath, filter_options, make_filters, open_tables
from perfkit.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from perfkit.analysis.session import Tables
    from perfkit.exporters.base import Exporter

FORMATS = ("speedscope", "collapsed", "pprof", "chrome", "otlp-json", "csv", "xlsx", "svg")
VIEWS = ("running", "code", "critical-path", "requests")
_BINARY = ("pprof", "xlsx")


@click.command(
    epilog="Example: perfkit export slow.perfkit --format svg --view requests -o slow.svg"
)
@click.argument("capture", type=CapturePath())
@click.option("--format", "form", type=click.Choice(FORMATS), required=True, help="What to write.")
@click.option(
    "--view",
    type=click.Choice(VIEWS),
    help="What a flame graph shows; by default the first of these that has anything.",
)
@click.option(
    "--table", "chosen", multiple=True, metavar="NAME", help="The table of a CSV, a sheet of XLSX."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The file to write, or - for stdout; the capture's name with the format's suffix when "
    "not given.",
)
@filter_options
def command(
    capture: Path,
    form: str,
    view: str | None,
    chosen: tuple[str, ...],
    output: Path | None,
    **filters: Any,
) -> None:
    """Write CAPTURE in a format that another tool opens.

    \b
    speedscope   speedscope.app: every view, and sampled threads in time order
    collapsed    flamegraph.pl, inferno: one stack a line, in µs
    pprof        go tool pprof, Pyroscope, Parca
    chrome       ui.perfetto.dev, chrome://tracing: spans and stacks on a time axis
    otlp-json    OpenTelemetry backends: spans and metrics
    csv, xlsx    spreadsheets: tables, captured and derived (--table)
    svg          a static flame graph for a ticket

    \b
    Views: running        code, while its thread ran
           code           code, running or waiting
           critical-path  spans, by what set the length of requests
           requests       spans, by self time
    """
    from perfkit.exporters import by_name
    from perfkit.exporters.base import Source

    exporter = by_name(form)
    # Trees and spans are drawn from one piece; tables may come from shards.
    engine = "auto" if exporter.TABLES else "whole"
    tables = open_tables(capture, make_filters(filters), engine)
    _check(exporter, view, chosen, tables)
    name = capture.resolve().name.removesuffix(".perfkit") or "capture"
    to_stdout = str(output) == "-"
    if to_stdout and form in _BINARY and sys.stdout.isatty():
        raise UsageError(f"{form} is not for a terminal", hint=f"-o {name}{exporter.SUFFIX}")
    target = output or capture.resolve().with_name(f"{name}{exporter.SUFFIX}")
    if not to_stdout:
        check_writable(target)
    source = Source(name=name, tables=_Selected(tables), view=view, chosen=chosen)
    pieces = exporter.export(source)
    if to_stdout:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        return
    size = write_pieces(target, pieces)
    click.echo(f"{target} ({units.size(size)})")


def _check(exporter: Exporter, view: str | None, chosen: tuple[str, ...], tables: Tables) -> None:
    """Refuse what a format cannot do. Raises UsageError."""
    if view is not None and not exporter.VIEWS:
        raise UsageError(f"--view is not for {exporter.NAME}: it draws no flame graph")
    if chosen and not exporter.TABLES:
        raise UsageError(f"--table is not for {exporter.NAME}: it writes no tables")
    for name in chosen:
        if name not in tables:
            from perfkit.sql.scopes import unknown

            message, hint = unknown("table", name, dict.fromkeys(tables, ()))
            raise UsageError(message, hint=hint)


class _Selected(Mapping[str, "pl.LazyFrame"]):
    """The tables of a capture, of which those of spans hold only spans that pass the filters."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def __getitem__(self, name: str) -> pl.LazyFrame:
        from perfkit.analysis.filters import Filters

        if self._tables.filters == Filters():
            return self._tables[name]
        if name == "samples":
            from perfkit.model import SAMPLES

            columns = [column for column in SAMPLES.schema if column != "gil_ns"]
            return self._tables["ordered_samples"].select(columns)
        if name in ("spans", "span_events", "span_links"):
            keys = ["trace_hi", "trace_lo", "span_id"]
            kept = self._tables["tree"].select(keys).unique()
            return self._tables[name].join(kept, on=keys, how="semi", maintain_order="left")
        return self._tables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)
