"""`perfkit history`: the figures of many runs, and where they changed."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perfkit import units
from perfkit.cli import text
from perfkit.cli.data import jsonable
from perfkit.cli.files import check_writable, write_whole
from perfkit.cli.options import Percentage, open_tables
from perfkit.errors import UsageError

if TYPE_CHECKING:
    from perfkit.gate.runs import Run
    from perfkit.gate.trend import Series, Shift

_MEASURES = ("p50", "p95", "p99", "mean", "error_ratio", "rate", "queries", "cpu", "memory")
_COMMIT = re.compile(r"[0-9A-Za-z][0-9A-Za-z._/-]{0,199}\Z")
_SHORT = 10

_folder = click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
_as_json = click.option("--json", "as_json", is_flag=True, help="Write it as JSON.")
_branch = click.option("--branch", help="Only runs of this branch.")


@click.group(epilog="Example: perfkit history add run.perfkit history --label load=nightly")
def command() -> None:
    """Keep the figures of runs in a folder, and find the commit that made them worse.

    The folder holds one small Parquet file a run, never written again: keep it in a branch or an
    artifact store; copies merge by putting their files together. It may be a URL too, as
    s3://bucket/history; credentials are found as the cloud's own tools find them.
    """


@command.command(epilog="Example: perfkit history add run.perfkit history --label load=nightly")
@click.argument("captures", nargs=-1, required=True, metavar="CAPTURE...")
@_folder
@click.option("--commit", help="As CI or git says, when not given.")
@click.option("--branch", help="The same.")
@click.option("--label", "labels", metavar="NAME=VALUE", multiple=True, help="Anything to keep.")
def add(
    captures: tuple[str, ...],
    folder: Path,
    commit: str | None,
    branch: str | None,
    labels: tuple[str, ...],
) -> None:
    """Keep the figures of each CAPTURE in FOLDER."""
    from perfkit.analysis.filters import Filters
    from perfkit.gate import history

    for label in labels:
        if not re.match(r"[^=\s]+=", label):
            raise UsageError(f"--label {label!r}: write NAME=VALUE")
    for path in captures:
        tables = open_tables(Path(path), Filters())
        own_commit, own_branch = history.origin(tables)
        added = history.add(
            folder, tables, _plain(commit or own_commit), _plain(branch or own_branch), labels
        )
        click.echo(f"{added.place}{' (was there already)' if added.known else ''}")


def _plain(name: str | None) -> str | None:
    if name is not None and not _COMMIT.match(name):
        raise UsageError(f"{name!r} is no name of a commit or branch")
    return name


@command.command(name="list", epilog="Example: perfkit history list history --branch main")
@_folder
@_branch
@_as_json
def list_(folder: Path, branch: str | None, as_json: bool) -> None:
    """List the runs in FOLDER, the oldest first."""
    runs = _runs(folder, branch)
    if as_json:
        click.echo(json.dumps(jsonable([_run(run) for run in runs]), indent=1, ensure_ascii=False))
        return
    rows = []
    for run in runs:
        source = run.source
        whole = {row["measure"]: row["value"] for row in run.figures.filter(kind="all").to_dicts()}
        rows.append(
            (
                _moment(source.started_ns),
                (source.commit or units.MISSING)[:_SHORT],
                source.branch or units.MISSING,
                units.rate(whole.get("rate_per_s")),
                units.duration(whole.get("p95_ns")),
                units.percent(whole.get("error_ratio")),
            )
        )
    text.table(("run", "commit", "branch", "rate", "p95", "errors"), rows)


@command.command(epilog="Example: perfkit history trend history --branch main -o trend.html")
@_folder
@_branch
@click.option(
    "--measure",
    type=click.Choice(_MEASURES),
    multiple=True,
    help="Figures to look at.  [default: p95, error_ratio]",
)
@click.option("--min-effect", type=Percentage(), default="5%", show_default=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="A file to write: a page (HTML), or Markdown when its name ends in .md.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "markdown", "html")),
    help="How to write it.  [default: text, with -o as the file's name says]",
)
@_as_json
def trend(
    folder: Path,
    branch: str | None,
    measure: tuple[str, ...],
    min_effect: float,
    output: Path | None,
    form: str | None,
    as_json: bool,
) -> None:
    """Say where figures changed for good, and between which commits. Needs perfkit[history]."""
    from perfkit.gate import shelf
    from perfkit.gate import trend as trends
    from perfkit.gate.figures import BY_LABEL

    form = _form(form, output, as_json=as_json)
    if output is not None:
        check_writable(output)
    runs = _runs(folder, branch)
    series = trends.series(runs, [BY_LABEL[label] for label in measure or ("p95", "error_ratio")])
    if not series:
        raise UsageError(
            f"{shelf.shown(folder)}: {len(runs)} runs; a trend needs {trends.FEWEST_RUNS} "
            "with enough requests",
            hint="add runs: perfkit history add CAPTURE FOLDER",
        )
    shifts = trends.shifts(series, min_effect)
    if form != "text":
        document = _document(form, folder.resolve().name, runs, series, shifts)
        if output is None:
            click.echo(document, nl=False)
            return
        click.echo(f"{output} ({units.size(write_whole(output, document))})", err=True)
    if as_json:
        data = {"runs": len(runs), "figures": len(series), "shifts": [_shift(s) for s in shifts]}
        click.echo(json.dumps(jsonable(data), indent=1, ensure_ascii=False))
        return
    text.paragraph(f"{len(runs)} runs, {len(series)} figures, {len(shifts)} changes for good.")
    for shift in shifts:
        _show(shift)


def _form(form: str | None, output: Path | None, *, as_json: bool) -> str:
    """Return what to write: what was asked for, or what the file's name says."""
    if output is None:
        if as_json and form not in (None, "text"):
            raise UsageError(f"--json and --format {form} both want stdout", hint="give -o FILE")
        return form or "text"
    if form == "text":
        raise UsageError("-o takes HTML or Markdown", hint="for text: > FILE instead of -o FILE")
    markdown = output.suffix.lower() in (".md", ".markdown")
    return form or ("markdown" if markdown else "html")


def _document(
    form: str, title: str, runs: list[Run], series: list[Series], shifts: list[Shift]
) -> bytes:
    figures = [_drawn(one, shifts) for one in series]
    if form == "markdown":
        from perfkit.gate.outputs import trend as markdown

        return markdown.write(title, len(runs), figures)
    from perfkit.report.trend_page import render

    return render(title, figures).encode("utf-8", "replace")


def _show(shift: Shift) -> None:
    click.echo()
    colour = "red" if shift.worse else "green"
    click.secho(text.plain(_words(shift)), fg=colour, bold=True)
    good, bad = shift.good.source, shift.bad.source
    text.paragraph(
        f"between {good.commit or good.name} ({_moment(good.started_ns)}) and "
        f"{bad.commit or bad.name} ({_moment(bad.started_ns)})",
        indent=2,
    )
    if good.commit and bad.commit and good.commit != bad.commit:
        click.echo(f"  git log {text.plain(good.commit)}..{text.plain(bad.commit)}")


def _words(shift: Shift) -> str:
    from perfkit.gate.figures import MEASURES

    one = MEASURES[shift.series.measure]
    size = (
        units.percent(abs(shift.change))
        if shift.relative
        else f"{abs(shift.change) * 100:.3g} points"
    )
    return (
        f"{'Worse' if shift.worse else 'Better'}: {_name(shift.series)}: {one.label} "
        f"{one.write(shift.before)} → {one.write(shift.after)} "
        f"({'+' if shift.change > 0 else '−'}{size})"
    )


def _name(series: Series) -> str:
    kind = series.kind if series.kind != "endpoint" else series.service
    return " ".join(part for part in (kind, series.name) if part)


def _shift(shift: Shift) -> dict[str, Any]:
    return {
        "kind": shift.series.kind,
        "service": shift.series.service,
        "name": shift.series.name,
        "measure": shift.series.measure,
        "worse": shift.worse,
        "before": shift.before,
        "after": shift.after,
        "change": shift.change,
        "relative": shift.relative,
        "p": shift.p,
        "last_before": _run(shift.good),
        "first_after": _run(shift.bad),
    }


def _run(run: Run) -> dict[str, Any]:
    source = run.source
    return {
        "file": source.name,
        "run": source.id,
        "started_ns": source.started_ns,
        "commit": source.commit,
        "branch": source.branch,
        "labels": list(run.labels),
    }


def _drawn(series: Series, shifts: list[Shift]) -> dict[str, Any]:
    """Return a figure as the page draws it."""
    from perfkit.gate.figures import MEASURES

    one = MEASURES[series.measure]
    mine = [shift for shift in shifts if shift.series is series]
    return {
        "title": f"{_name(series)}: {one.label}",
        "points": [
            {
                "value": float(value),
                "label": one.write(float(value)),
                "moment": _moment(run.source.started_ns),
                "commit": run.source.commit,
            }
            for run, value in zip(series.runs, series.values, strict=True)
        ],
        "shifts": [
            {
                "place": shift.place,
                "worse": shift.worse,
                "words": _words(shift),
                "good": shift.good.source.commit,
                "bad": shift.bad.source.commit,
            }
            for shift in sorted(mine, key=lambda shift: shift.place)
        ],
    }


def _runs(folder: Path, branch: str | None) -> list[Run]:
    from perfkit.gate import history, shelf

    runs = history.load(folder)
    chosen = [run for run in runs if branch is None or run.source.branch == branch]
    if not chosen:
        known = sorted({run.source.branch for run in runs if run.source.branch})
        raise UsageError(
            f"{shelf.shown(folder)}: no runs" + (f" of branch {branch}" if branch else ""),
            hint=f"branches: {', '.join(known[:8])}" if known else "add some: perfkit history add",
        )
    return chosen


def _moment(ts_ns: int | None) -> str:
    if ts_ns is None:
        return units.MISSING
    return f"{dt.datetime.fromtimestamp(ts_ns / 1e9, dt.UTC):%Y-%m-%d %H:%M}"
