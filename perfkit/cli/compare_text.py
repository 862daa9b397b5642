"""A comparison in words and tables, for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from perfkit import units
from perfkit.cli import text

if TYPE_CHECKING:
    import polars as pl

    from perfkit.analysis.comparison.compare import Comparison
    from perfkit.analysis.comparison.contrast import Contrast

_TOP = 8
_CHANGED = ("grew", "shrank")
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
    for line in answer(comparison):
        text.paragraph(line)


def answer(comparison: Comparison) -> list[str]:
    """Return the answer in three sentences: what changed, what made it, and how sure that is."""
    tail = comparison.traits is not None
    what = _what_slow_ones_share(comparison) if tail else _what_changed(comparison)
    return [what, _what_made_it(comparison), _claim(comparison.contrast)]


def _what_slow_ones_share(comparison: Comparison) -> str:
    """Return what the slow requests of the busiest endpoint share, and where their time was."""
    assert comparison.traits is not None
    rows = comparison.traits.to_dicts()
    if not rows:
        return "Slow requests have nothing in common that typical ones have not."
    endpoint = [row for row in rows if row["endpoint"] == rows[0]["endpoint"]]
    best = [next((row for row in endpoint if row["kind"] == kind), None) for kind in ("was", "did")]
    parts = [f"{_trait(row)} ({_shares(row)})" for row in best if row]
    name = text.shorten(rows[0]["endpoint"], 50)
    return f"Slow requests to {name} are those with {'; they have '.join(parts)}."


def _trait(row: Row) -> str:
    parts = [(row["key"], row["value"]), (row["key_2"], row["value_2"])]
    return " and ".join(_pair(key, value) for key, value in parts if key)


def _pair(key: str, value: str) -> str:
    value = text.shorten(value, 40)
    return f"{text.plain(key)} {value}" if value.startswith("> ") else f"{text.plain(key)}={value}"


def _shares(row: Row) -> str:
    slow, typical = units.percent(row["slow_ratio"]), units.percent(row["typical_ratio"])
    return f"{slow} of the slow, {typical} of the typical"


def _show_traits(traits: pl.DataFrame) -> None:
    text.heading("What slow requests share and typical ones do not")
    if traits.is_empty():
        click.echo("Nothing that is surely more frequent among them.")
    for (_, endpoint), rows in traits.group_by("service", "endpoint", maintain_order=True):
        text.table(
            [text.shorten(endpoint, 60), "slow", "typical", "lift", "p"],
            [
                [
                    text.shorten(_trait(row), 60),
                    units.percent(row["slow_ratio"]),
                    units.percent(row["typical_ratio"]),
                    units.number(row["lift"]),
                    _probability(row["p_adjusted"]),
                ]
                for row in rows.to_dicts()[:_TOP]
            ],
        )


def _what_changed(comparison: Comparison) -> str:
    """Return the change that users feel: that of an endpoint at the edge before any inside."""
    differences = comparison.differences
    edge = differences.filter(kind="endpoint").join(
        comparison.contrast.entries().select("service", name="endpoint").unique(),
        on=["service", "name"],
        how="semi",
        nulls_equal=True,
    )
    kinds = ("endpoint", "tool", "component", "query")
    for kind, rows in [
        ("endpoint", edge),
        *((kind, differences.filter(kind=kind)) for kind in kinds),
    ]:
        changed = rows.filter(rows["verdict"].is_in(_CHANGED))
        if not changed.is_empty():
            row = max(changed.to_dicts(), key=_importance)
            others = changed.height - 1
            more = f" ({others} more figures of {kind}s changed)" if others else ""
            return f"Changed: {_label(row)} {_MEASURES[row['measure']]} {_change(row)}{more}."
    of_requests = differences.filter(differences["kind"] != "resource")
    tested = int(of_requests["p"].is_not_null().sum())
    if not tested:
        return "Not tested: too few requests in too few runs for any figure of requests."
    return f"No evidence of change in requests: none of {units.number(tested)} figures surely did."


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
    if row["kind"] == "component":
        part = name if row["service"] == row["name"] else f"{text.plain(row['service'])} → {name}"
        return f"{part} ({row['detail']})"
    return name


def _amount(value: float | None, row: Row) -> str:
    if value is None:
        return units.MISSING
    measure = row.get("measure", "self_ns")
    if measure.endswith("_ns"):
        return units.duration(value)
    if measure == "error_ratio" or str(row["name"]).endswith(".utilization"):
        return units.percent(value)
    return units.quantity(value, row["unit"])


def _change(row: Row) -> str:
    before, after = (_amount(row[side], row) for side in ("before", "after"))
    return f"{before} → {after}, {_relative(row['change'], row)} ({_interval(row)})"


def _relative(value: float | None, row: Row) -> str:
    if value is None:
        return units.MISSING
    sign = "+" if value >= 0 else "−"
    if row["relative"]:
        return f"{sign}{units.percent(abs(value))}"
    return f"{sign}{_amount(abs(value), row)}"


def _interval(row: Row) -> str:
    if row["low"] is None:
        return "not tested"
    return f"{_relative(row['low'], row)} to {_relative(row['high'], row)}"


def _show_differences(comparison: Comparison, title: str, kind: str) -> None:
    rows = comparison.differences.filter(kind=kind)
    shown = rows.filter(rows["verdict"].is_in(_CHANGED)).head(_TOP).to_dicts()
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
                    _label(row),
                    *([_MEASURES[row["measure"]]] * several),
                    _amount(row["before"], row),
                    _amount(row["after"], row),
                    _relative(row["change"], row),
                    _interval(row),
                    _probability(row["p_adjusted"]),
                ]
                for row in shown
            ],
            least=_LEAST_LABEL,
        )


def _count_of_changes(rows: pl.DataFrame) -> str:
    changed = int(rows["verdict"].is_in(_CHANGED).sum())
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
    """Print the paths that surely changed, and how many came and went."""
    if paths.is_empty():
        return
    states = ", ".join(
        f"{units.number(int((paths['state'] == state).sum()))} {state}"
        for state in ("new", "vanished")
    )
    changed = paths.filter(paths["verdict"].is_in(_CHANGED))
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
                _relative(row["change"], {**row, "relative": row["self_before"] > 0}),
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
        f"- Welch's test over {_UNITS[contrast.unit]}, intervals of {1 - LEVEL:.0%}; p corrected "
        "for the number of tests of its kind by Benjamini and Hochberg, so that few of the changes "
        f"listed are false; changes under {MINIMUM_EFFECT:.0%} are not reported."
    )
