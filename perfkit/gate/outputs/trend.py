"""The trend of a history in Markdown, for a pull request or the summary of a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfkit import units
from perfkit.gate.outputs.markdown import text

_MOST_STEADY = 50


def write(title: str, runs: int, figures: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the trend as Markdown. A figure has `title`, `points` (label, moment, commit), the
    oldest first, and `shifts` (worse, words, good, bad).
    """
    shifts = [(figure, shift) for figure in figures for shift in figure["shifts"]]
    worse = sum(bool(shift["worse"]) for _, shift in shifts)
    mark = "❌" if worse else "✅"
    lines = [
        f"## {mark} Trend of {text(title)}: {len(shifts) or 'no'} "
        f"change{'' if len(shifts) == 1 else 's'} for good",
        "",
        f"{runs} runs, {len(figures)} figures, {_span(figures)}.",
        "",
    ]
    if shifts:
        lines += ["| | change | last run before | first run after |", "|---|---|---|---|"]
        lines += [_row(figure, shift) for figure, shift in shifts]
        lines += ["", *_ranges([shift for _, shift in shifts])]
    steady = [figure for figure in figures if not figure["shifts"]]
    if steady:
        lines += [f"<details><summary>{len(steady)} without change</summary>", ""]
        lines += ["| figure | runs | first | last |", "|---|---|---|---|"]
        lines += [_steady(figure) for figure in steady[:_MOST_STEADY]]
        if len(steady) > _MOST_STEADY:
            lines += ["", f"… and {len(steady) - _MOST_STEADY} more"]
        lines += ["", "</details>", ""]
    return "\n".join(lines).encode("utf-8", "replace")


def _span(figures: Sequence[Mapping[str, Any]]) -> str:
    moments = [point["moment"] for figure in figures for point in figure["points"]]
    known = sorted(moment for moment in moments if moment != units.MISSING)
    return f"{known[0]} to {known[-1]} UTC" if known else "of times that are not known"


def _row(figure: Mapping[str, Any], shift: Mapping[str, Any]) -> str:
    before, after = (figure["points"][shift["place"] - step] for step in (1, 0))
    cells = [text(shift["words"]), *(_run(point) for point in (before, after))]
    return f"| {'❌' if shift['worse'] else '✅'} | {' | '.join(cells)} |"


def _run(point: Mapping[str, Any]) -> str:
    return " ".join(part for part in (text(point["commit"] or ""), f"({point['moment']})") if part)


def _ranges(shifts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the commits to look at: those after the last good run, up to the first bad one."""
    found = [
        f"- git log {text(shift['good'])}..{text(shift['bad'])}"
        for shift in shifts
        if shift["worse"] and shift["good"] and shift["bad"] and shift["good"] != shift["bad"]
    ]
    return ["**Where to look**", "", *dict.fromkeys(found), ""] if found else []


def _steady(figure: Mapping[str, Any]) -> str:
    points = figure["points"]
    cells = [text(figure["title"]), str(len(points))]
    cells += [text(points[place]["label"]) for place in (0, -1)]
    return f"| {' | '.join(cells)} |"
