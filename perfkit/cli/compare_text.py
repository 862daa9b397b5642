"""A comparison in words and tables, for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from perfkit import units
from perfkit.analysis.comparison import words
from perfkit.cli import text

if TYPE_CHECKING:
    import polars as pl

    from perfkit.analysis.comparison.compare import Comparison
    from perfkit.analysis.comparison.contrast import Contrast

_TOP = 8
_UNITS = {"run": "runs", "block of time": "blocks of time"}
_LEAST_LABEL = 24
"""Names that are cut to less all look alike; the last columns give way first."""
Row = dict[str, Any]

_TABLES = (
    ("Endpoints", "endpoint"),
    ("Tools", "tool"),
    ("Components", "component"),
    ("Queries", "query"),
    ("Resources", "resource"),
)


def show(comparison: Comparison) -> None:
    """Print the answer first, then what it rests on."""
    _show_answer(comparison)
    if comparison.traits is not None:
        _show_traits(comparison.traits)
    for title, kind in _TABLES:
        # Slow ones are slower: that is how they were chosen.
        if comparison.traits is None or kind not in ("endpoint", "tool"):
            _show_differences(comparison, title, kind)
    _show_causes(comparison)
    _show_paths("Call paths of requests", comparison.request_paths)
    _show_paths("Code that ran", comparison.code_paths)
    _show_method(comparison.contrast)


def _show_answer(comparison: Comparison) -> None:
    before, after = comparison.contrast.names
    click.secho(f"{text.plain(before)} → {text.plain(after)}", bold=True)
    for line in words.answer(comparison):
        text.paragraph(line)


def _show_traits(traits: pl.DataFrame) -> None:
    text.heading("What slow requests share and typical ones do not")
    if traits.is_empty():
        click.echo("Nothing that is surely more frequent among them.")
    for (_, endpoint), rows in traits.group_by("service", "endpoint", maintain_order=True):
        text.table(
            [text.shorten(endpoint, 60), "slow", "typical", "lift", "p"],
            [
                [
                    text.shorten(words.trait(row), 60),
                    units.percent(row["slow_ratio"]),
                    units.percent(row["typical_ratio"]),
                    units.number(row["lift"]),
                    _probability(row["p_adjusted"]),
                ]
                for row in rows.to_dicts()[:_TOP]
            ],
        )


def _show_differences(comparison: Comparison, title: str, kind: str) -> None:
    rows = comparison.differences.filter(kind=kind)
    shown = rows.filter(rows["verdict"].is_in(words.CHANGED)).head(_TOP).to_dicts()
    tested = int(rows["p"].is_not_null().sum())
    if not tested:
        return
    text.heading(f"{title}: {_count_of_changes(rows)} of {units.number(tested)} tested")
    if shown:
        # Of a metric the only figure is its mean.
        several = kind != "resource"
        text.table(
            ["", *([""] * several), "before", "after", "change", "interval", "p"],
            [
                [
                    words.label(row),
                    *([words.MEASURES[row["measure"]]] * several),
                    words.amount(row["before"], row),
                    words.amount(row["after"], row),
                    words.relative(row["change"], row),
                    words.interval(row),
                    _probability(row["p_adjusted"]),
                ]
                for row in shown
            ],
            least=_LEAST_LABEL,
        )


def _count_of_changes(rows: pl.DataFrame) -> str:
    changed = int(rows["verdict"].is_in(words.CHANGED).sum())
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
    text.heading("Components by how unusual they are")
    text.table(
        ["component", "score", "verdict", "latency", "behaviour", "beyond normal", "requests"],
        [
            [
                text.shorten(row["component"], 60),
                f"{row['score']:.2f}",
                row["verdict"],
                f"{row['latency_score']:.2f}",
                f"{row['behaviour_score']:.2f}",
                units.percent(row["explained_ratio"]),
                units.number(row["requests"]),
            ]
            for row in rows
        ],
        least=_LEAST_LABEL,
    )
    for row in comparison.causes.evidence.to_dicts():
        if row["component"] in {shown["component"] for shown in rows[:3]}:
            text.paragraph(f"{text.plain(row['component'])}: {words.reason(row)}", indent=2)


def _show_paths(title: str, paths: pl.DataFrame) -> None:
    """Print the paths that surely changed, and how many came and went."""
    if paths.is_empty():
        return
    states = ", ".join(
        f"{units.number(int((paths['state'] == state).sum()))} {state}"
        for state in ("new", "vanished")
    )
    changed = paths.filter(paths["verdict"].is_in(words.CHANGED))
    text.heading(f"{title}: {changed.height or 'no evidence of'} change; {states}")
    if changed.is_empty():
        return
    size = (changed["self_after"] - changed["self_before"]).abs()
    top = changed[size.arg_sort(descending=True)].head(_TOP).to_dicts()
    # Without requests own time is a share of all, and all shares together are one.
    as_shares = sum(row["self_before"] + row["self_after"] for row in top) <= 2
    write = units.percent if as_shares else units.duration
    text.table(
        ["", "before", "after", "change", "calls", "", "p"],
        [
            [
                text.shorten(row["label"], 60),
                write(row["self_before"]),
                write(row["self_after"]),
                words.relative(row["change"], {**row, "relative": row["self_before"] > 0}),
                f"{units.number(row['count_before'])} → {units.number(row['count_after'])}",
                "" if row["state"] == "both" else row["state"],
                _probability(row["p_adjusted"]),
            ]
            for row in top
        ],
    )


def _show_method(contrast: Contrast) -> None:
    from perfkit.analysis.statistics.significance import LEVEL, MINIMUM_EFFECT

    text.heading("How this was decided")
    for note in contrast.notes:
        text.paragraph(f"- {note}")
    text.paragraph(
        f"- Welch's test over {_UNITS[contrast.unit]}, intervals of {1 - LEVEL:.1%}; p corrected "
        "for the number of tests of its kind by Benjamini and Hochberg, so that few of the changes "
        f"listed are false; changes under {MINIMUM_EFFECT:.0%} are not reported."
    )
