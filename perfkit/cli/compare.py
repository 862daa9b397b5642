"""`perfkit compare`: what changed between two sides, and what made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perfkit import units
from perfkit.cli import text
from perfkit.cli.data import jsonable
from perfkit.cli.options import Moment, filter_options, make_filters
from perfkit.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from perfkit.analysis.compare import Comparison
    from perfkit.analysis.contrast import Contrast
    from perfkit.analysis.filters import Filters

_VERSUS = "vs"
_TOP = 8
_MOST_IN_JSON = 500
Row = dict[str, Any]


@click.command(epilog="Example: perfkit compare main-*.perfkit vs change-*.perfkit --json")
@click.argument("captures", nargs=-1, required=True, metavar="CAPTURE [CAPTURE | ... vs ...]")
@click.option("--at", "at_ns", type=Moment(), help="Before this time against from it on.")
@click.option("--endpoints", nargs=2, metavar="A B", help="One endpoint against another.")
@click.option(
    "--between", nargs=2, metavar="SQL SQL", help="Requests by two predicates, as in --where."
)
@filter_options
@click.option("--json", "as_json", is_flag=True, help="Write everything as JSON.")
def command(
    captures: tuple[str, ...],
    at_ns: int | None,
    endpoints: tuple[str, str] | None,
    between: tuple[str, str] | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """Say what changed between two sides, how sure that is, and which component made it.

    \b
    perfkit compare A                 the slowest requests of A against its typical ones
    perfkit compare A --at 10:04:30   the same capture before and after a moment
    perfkit compare A B               capture A against capture B
    perfkit compare A1 A2 vs B1 B2    several runs a side: the only sure way

    A difference is tested over runs. With one capture a side, blocks of its time stand in for
    runs: they share that capture's luck, so the claim is weaker, and the output says so.
    """
    from perfkit.analysis.compare import compare

    choices = {"--at": at_ns, "--endpoints": endpoints, "--between": between}
    contrast = _contrast(captures, choices, make_filters(filters))
    comparison = compare(contrast)
    if as_json:
        click.echo(json.dumps(_as_data(comparison), indent=1, ensure_ascii=False))
        return
    _show_answer(comparison)
    for title, kind in _TABLES:
        _show_differences(comparison, title, kind)
    _show_causes(comparison)
    _show_paths("Call paths of requests, by change of own time", comparison.request_paths)
    _show_paths("Code, by change of running time", comparison.code_paths)
    _show_method(contrast)


def _contrast(captures: tuple[str, ...], choices: Row, filters: Filters) -> Contrast:
    from perfkit.analysis import contrast
    from perfkit.capture import Capture

    before, after = _sides(captures)
    chosen = [name for name, value in choices.items() if value]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} ask for different comparisons")
    if chosen and after:
        raise UsageError(
            f"{chosen[0]} compares requests of one capture", hint="give only one capture"
        )
    opened = [Capture.open(path) for path in before]
    if after:
        return contrast.of_captures(opened, [Capture.open(path) for path in after], filters)
    (capture,) = opened
    if choices["--at"] is not None:
        return contrast.of_moment(capture, choices["--at"], filters)
    if choices["--endpoints"]:
        return contrast.of_endpoints(capture, *choices["--endpoints"], filters)
    if choices["--between"]:
        return contrast.of_predicates(capture, *choices["--between"], filters)
    return contrast.of_tail(capture, filters)


def _sides(captures: tuple[str, ...]) -> tuple[list[Path], list[Path]]:
    """Return the captures of the one side and of the other; of the other none for a single one."""
    if _VERSUS in captures:
        place = captures.index(_VERSUS)
        before, after = captures[:place], captures[place + 1 :]
        if not before or not after or _VERSUS in after:
            raise UsageError(f"write captures on both sides of one {_VERSUS!r}")
    elif len(captures) <= 2:
        before, after = captures[:1], captures[1:]
    else:
        raise UsageError(
            f"{len(captures)} captures: which are before, which after?",
            hint="perfkit compare A1 A2 A3 vs B1 B2 B3",
        )
    return [Path(path) for path in before], [Path(path) for path in after]


_TABLES = (
    ("Endpoints", "endpoint"),
    ("Tools", "tool"),
    ("Components", "component"),
    ("Queries", "query"),
    ("Resources", "resource"),
)
_MEASURES = {
    "p50_ns": "p50",
    "p95_ns": "p95",
    "mean_ns": "mean",
    "error_ratio": "errors",
    "critical_ns": "time/req",
    "calls": "calls/req",
    "total_ns": "time/req",
    "value": "mean",
}
_WORDS = {"grew": "grew", "shrank": "shrank", "no evidence": "–", "not tested": "not tested"}


def _show_answer(comparison: Comparison) -> None:
    before, after = comparison.contrast.names
    click.secho(f"{text.plain(before)} → {text.plain(after)}", bold=True)
    for line in _answer(comparison):
        text.paragraph(line)


def _answer(comparison: Comparison) -> list[str]:
    """Return the answer in three sentences: what changed, what made it, and how sure that is."""
    tail = comparison.contrast.about == "tail"
    lines = [] if tail else [_what_changed(comparison.differences)]
    lines.append(_what_made_it(comparison))
    lines.append(_claim(comparison.contrast))
    return lines


def _what_changed(differences: pl.DataFrame) -> str:
    for kind in ("endpoint", "tool", "component", "query", "resource"):
        rows = differences.filter(kind=kind)
        changed = rows.filter(rows["verdict"].is_in(["grew", "shrank"]))
        if not changed.is_empty():
            row = max(changed.to_dicts(), key=_importance)
            others = changed.height - 1
            more = f" ({others} more figures of {kind}s changed)" if others else ""
            return f"Changed: {_label(row)} {_MEASURES[row['measure']]} {_change(row)}{more}."
    tested = int(differences["p"].is_not_null().sum())
    if not tested:
        return "Not tested: too few requests in too few runs for any figure."
    return f"No evidence of change: none of {units.number(tested)} tested figures differs surely."


def _importance(row: Row) -> tuple[bool, float]:
    """Sort what got worse first, then by how much time or share is at stake."""
    size = abs((row["after"] or 0.0) - (row["before"] or 0.0))
    return row["verdict"] == "grew", size


def _what_made_it(comparison: Comparison) -> str:
    ranking, evidence = comparison.causes
    if ranking.is_empty():
        return "No component to name: there are no requests on both sides."
    first = ranking.row(0, named=True)
    if first["score"] <= 0:
        return (
            "No component stands out: whatever is unusual is no more than the one side shows "
            "against itself."
        )
    why = [_reason(row) for row in evidence.filter(component=first["component"]).to_dicts()]
    share = units.percent(first["explained_ratio"])
    explained = f" It holds {share} of the time beyond normal." if first["excess_ns"] else ""
    return f"Most likely cause: {text.plain(first['component'])}: {'; '.join(why)}.{explained}"


def _reason(row: Row) -> str:
    operation = text.shorten(row["operation"], 40)
    if row["callee"]:
        operation += f" → {text.plain(row['callee'])}"
    if row["reason"] == "slower":
        return (
            f"{operation} takes {units.duration(row['after'])} itself instead of "
            f"{units.duration(row['before'])}"
        )
    shares = f"{units.percent(row['after'])} instead of {units.percent(row['before'])}"
    if row["reason"] == "fails":
        return f"{operation} fails in {shares}"
    return f"{operation} calls {text.shorten(row['child'], 40)} in {shares}"


def _claim(contrast: Contrast) -> str:
    before, after = ((contrast.side_of_run == side).sum() for side in (0, 1))
    if contrast.unit == "run":
        return f"Tested over runs: {before} against {after} captures."
    if contrast.about == "tail":
        return (
            "Slow requests beyond their endpoint's p95, typical ones up to its p75; one capture, "
            "so this says what goes together, not what causes what."
        )
    return (
        f"A weaker claim: blocks of time ({before} against {after}) of one capture stand in for "
        "runs. Several captures a side would be sure: perfkit compare A1 A2 A3 vs B1 B2 B3."
    )


def _label(row: Row) -> str:
    name = text.shorten(row["name"], 60)
    if row["kind"] in ("component",) and row["service"] != row["name"]:
        return f"{text.plain(row['service'])} → {name}"
    return name


def _amount(value: float | None, measure: str) -> str:
    if value is None:
        return units.MISSING
    if measure.endswith("_ns"):
        return units.duration(value)
    return units.percent(value) if measure == "error_ratio" else units.number(value)


def _change(row: Row) -> str:
    before, after = (_amount(row[side], row["measure"]) for side in ("before", "after"))
    return f"{before} → {after}, {_relative(row['change'], row)} ({_interval(row)})"


def _relative(value: float | None, row: Row) -> str:
    if value is None:
        return units.MISSING
    sign = "+" if value >= 0 else "−"
    if row["relative"]:
        return f"{sign}{units.percent(abs(value))}"
    return f"{sign}{_amount(abs(value), row['measure'])}"


def _interval(row: Row) -> str:
    if row["low"] is None:
        return "not tested"
    return f"{_relative(row['low'], row)} to {_relative(row['high'], row)}"


def _show_differences(comparison: Comparison, title: str, kind: str) -> None:
    rows = comparison.differences.filter(kind=kind)
    shown = rows.filter(rows["verdict"].is_in(["grew", "shrank"])).head(_TOP).to_dicts()
    tested = int(rows["p"].is_not_null().sum())
    if not tested:
        return
    text.heading(f"{title}: {_count_of_changes(rows)} of {units.number(tested)} tested")
    if shown:
        text.table(
            ["", "", "before", "after", "change", "interval", "p"],
            [
                [
                    _label(row),
                    _MEASURES[row["measure"]],
                    _amount(row["before"], row["measure"]),
                    _amount(row["after"], row["measure"]),
                    _relative(row["change"], row),
                    _interval(row),
                    _probability(row["p_adjusted"]),
                ]
                for row in shown
            ],
        )


def _count_of_changes(rows: pl.DataFrame) -> str:
    changed = int(rows["verdict"].is_in(["grew", "shrank"]).sum())
    return f"{changed} changed" if changed else "no evidence of change"


def _probability(p: float | None) -> str:
    if p is None:
        return units.MISSING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _show_causes(comparison: Comparison) -> None:
    ranking = comparison.causes.ranking
    rows = ranking.filter(ranking["score"] > 0).head(_TOP).to_dicts()
    if not rows:
        return
    text.heading("Which component made it")
    text.table(
        ["component", "score", "latency", "behaviour", "beyond normal", "requests"],
        [
            [
                text.shorten(row["component"], 60),
                f"{row['score']:.2f}",
                f"{row['latency_score']:.2f}",
                f"{row['behaviour_score']:.2f}",
                units.percent(row["explained_ratio"]),
                units.number(row["requests"]),
            ]
            for row in rows
        ],
    )
    for row in comparison.causes.evidence.to_dicts():
        if row["component"] in {shown["component"] for shown in rows[:3]}:
            text.paragraph(f"{text.plain(row['component'])}: {_reason(row)}", indent=2)


def _show_paths(title: str, paths: pl.DataFrame) -> None:
    changed = paths.filter(
        paths["verdict"].is_in(["grew", "shrank"])
        | ((paths["state"] != "both") & paths["p"].is_not_null())
    )
    if changed.is_empty():
        return
    size = (changed["self_after"] - changed["self_before"]).abs()
    top = changed[size.arg_sort(descending=True)].head(_TOP)
    as_time = max(paths["total_after"].max() or 0, paths["total_before"].max() or 0) > 1  # type: ignore[type-var]
    write = units.duration if as_time else units.percent
    text.heading(title)
    text.table(
        ["", "before", "after", "change", "calls", "", "p"],
        [
            [
                f"{text.shorten(row['label'], 60)}",
                write(row["self_before"]),
                write(row["self_after"]),
                _relative(row["change"], {**row, "relative": row["self_before"] > 0, "measure": "self_ns"}),
                f"{units.number(row['count_before'])} → {units.number(row['count_after'])}",
                "" if row["state"] == "both" else row["state"],
                _probability(row["p_adjusted"]),
            ]
            for row in top.to_dicts()
        ],
    )


def _show_method(contrast: Contrast) -> None:
    from perfkit.analysis.significance import LEVEL, MINIMUM_EFFECT

    text.heading("How this was decided")
    for note in contrast.notes:
        text.paragraph(f"- {note}")
    text.paragraph(
        f"- Welch's test over {contrast.unit}s, intervals of {1 - LEVEL:.0%}; p corrected for the "
        "number of tests of its kind by Benjamini and Hochberg, so that of the changes listed few "
        f"are false; changes under {MINIMUM_EFFECT:.0%} are not reported."
    )


def _as_data(comparison: Comparison) -> Row:
    contrast = comparison.contrast
    data = {
        "before": contrast.names[0],
        "after": contrast.names[1],
        "about": contrast.about,
        "unit": contrast.unit,
        "runs": [int((contrast.side_of_run == side).sum()) for side in (0, 1)],
        "notes": list(contrast.notes),
        "answer": _answer(comparison),
        "causes": comparison.causes.ranking.to_dicts(),
        "evidence": comparison.causes.evidence.to_dicts(),
        "differences": comparison.differences.to_dicts(),
        "request_paths": comparison.request_paths.head(_MOST_IN_JSON).to_dicts(),
        "code_paths": comparison.code_paths.head(_MOST_IN_JSON).to_dicts(),
    }
    result = jsonable(data)
    assert isinstance(result, dict)
    return result
