"""A comparison in words, the same in a terminal and in the report. Nothing here is escaped."""

from __future__ import annotations

from typing import Any

import polars as pl

from perfkit import units
from perfkit.analysis.comparison.compare import Comparison
from perfkit.analysis.comparison.contrast import Contrast
from perfkit.analysis.comparison.standing import CAUSE, NO_EVIDENCE

CHANGED = ("grew", "shrank")
_NAMED = 3
"""So many components, or endpoints, are named at most."""
_SIDES = ("before", "after")
_BUSY = ("system.linux.tasks.running", "system.cpu.utilization", "system.linux.load_1m")
_OWN_CPU = "process.cpu.utilization"
"""Metrics of how much the machine had to do, the most direct first; and of what the program did."""
_BY_CHANCE = 0.001
"""Ours: what is less likely than this, is no chance."""
_MUCH = 0.5
"""Ours: so much of what slow requests take longer may be the machine's before it is told first."""
Row = dict[str, Any]

MEASURES = {
    "p50_ns": "p50",
    "p95_ns": "p95",
    "mean_ns": "mean",
    "error_ratio": "errors",
    "critical_ns": "time/req",
    "calls": "calls/req",
    "total_ns": "time/req",
    "value": "mean",
    "p99_ns": "p99",
    "rate_per_s": "rate",
}


_PLURAL = {
    "endpoint": "endpoints",
    "tool": "tools",
    "component": "components",
    "query": "queries",
}


def answer(comparison: Comparison) -> list[str]:
    """Return the answer in some sentences: what changed, came and went, what made it, how sure."""
    tail = comparison.traits is not None
    what = _what_slow_ones_share(comparison) if tail else _what_changed(comparison)
    came = [] if tail else _on_one_side(comparison.contrast)
    machine = _cores(comparison) if tail else _machine(comparison.differences)
    cause = _what_made_it(comparison, beside_machine=bool(machine))
    return [what, *came, *machine, cause, _claim(comparison.contrast)]


def _cores(comparison: Comparison) -> list[str]:
    """Say that slow requests may have waited for a core, where that explains most of it."""
    ratio = comparison.core_ratio
    if ratio is None or ratio < _MUCH:
        return []
    return [
        f"The machine was busy: up to {units.percent(ratio)} of what slow requests take longer may "
        "be waiting for a core that other programs had."
    ]


def _machine(differences: pl.DataFrame) -> list[str]:
    """Say that the machine was busier, or less busy, and not by what was recorded on it."""
    resources = differences.filter(kind="resource")
    own = resources.filter(name=_OWN_CPU)["verdict"]
    for verdict, word, effect in (
        ("grew", "busier", "slower"),
        ("shrank", "less busy", "faster"),
    ):
        rows = resources.filter(pl.col("name").is_in(_BUSY), verdict=verdict)
        if rows.is_empty() or verdict in own:
            continue
        row = min(rows.to_dicts(), key=lambda one: _BUSY.index(one["name"]))
        return [
            f"The machine was {word}, not by the recorded processes: {row['name']} {_change(row)}. "
            f"That alone makes requests {effect}."
        ]
    return []


def _on_one_side(contrast: Contrast) -> list[str]:
    """Say which endpoints are on one side only, where that is no chance of few requests."""
    if contrast.about not in ("captures", "time"):
        return []
    counts = (
        contrast.entries()
        .group_by("service", "endpoint")
        .agg((pl.col("side") == side).sum().alias(name) for side, name in enumerate(_SIDES))
        .sort("endpoint", "service")
    )
    total = counts.select(_SIDES).sum().row(0)
    said = []
    for side, name in enumerate(_SIDES):
        # As likely as this is it that all of them fall on one side by chance.
        chance = (total[side] / max(sum(total), 1)) ** pl.col(name)
        only = counts.filter((pl.col(_SIDES[1 - side]) == 0) & (chance < _BY_CHANCE))
        if only.height:
            top = only.sort(name, descending=True, maintain_order=True).head(_NAMED)
            listed = [
                f"{short(row['endpoint'], 50)} ({units.number(row[name])} requests)"
                for row in top.to_dicts()
            ]
            more = only.height - top.height
            rest = [f"{units.number(more)} more"] if more else []
            said.append(f"Only {name}: {', '.join(listed + rest)}.")
    return said


def _what_slow_ones_share(comparison: Comparison) -> str:
    """Return what the slow requests of the busiest endpoint share, and where their time was."""
    assert comparison.traits is not None
    rows = comparison.traits.to_dicts()
    if not rows:
        return "Slow requests have nothing in common that typical ones have not."
    endpoint = [row for row in rows if row["endpoint"] == rows[0]["endpoint"]]
    best = [next((row for row in endpoint if row["kind"] == kind), None) for kind in ("was", "did")]
    parts = [f"{trait(row)} ({shares(row)})" for row in best if row]
    name = short(rows[0]["endpoint"], 50)
    return f"Slow requests to {name} are those with {'; they have '.join(parts)}."


def trait(row: Row) -> str:
    """Return what slow requests share, as `key=value`."""
    parts = [(row["key"], row["value"]), (row["key_2"], row["value_2"])]
    return " and ".join(_pair(key, value) for key, value in parts if key)


def _pair(key: str, value: str) -> str:
    value = short(value, 40)
    return f"{key} {value}" if value.startswith("> ") else f"{key}={value}"


def shares(row: Row) -> str:
    """Return among how many of the slow and of the typical that is so."""
    slow, typical = units.percent(row["slow_ratio"]), units.percent(row["typical_ratio"])
    return f"{slow} of the slow, {typical} of the typical"


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
        changed = rows.filter(rows["verdict"].is_in(CHANGED))
        if not changed.is_empty():
            row = max(changed.to_dicts(), key=_importance)
            others = changed.height - 1
            more = f" ({others} more figures of {_PLURAL[kind]} changed)" if others else ""
            return f"Changed: {label(row)} {MEASURES[row['measure']]} {_change(row)}{more}."
    of_requests = differences.filter(differences["kind"] != "resource")
    tested = int(of_requests["p"].is_not_null().sum())
    if not tested:
        return "Not tested: too few requests in too few runs for any figure of requests."
    return (
        f"No evidence of change in requests: none of {units.number(tested)} figures surely changed."
    )


def _importance(row: Row) -> tuple[bool, float]:
    """Sort what got worse first, then by how much time or share is at stake."""
    size = abs((row["after"] or 0.0) - (row["before"] or 0.0))
    return row["verdict"] == "grew", size


def _what_made_it(comparison: Comparison, *, beside_machine: bool) -> str:
    ranking, evidence = comparison.causes.ranking, comparison.causes.evidence
    if ranking.is_empty():
        return "No component to name: there are no requests on both sides."
    named = ranking.filter(ranking["verdict"] != NO_EVIDENCE).head(_NAMED)
    if named.is_empty():
        return _nothing_sure(ranking)
    parts = []
    for row in named.to_dicts():
        lines = evidence.filter(component=row["component"])
        share = units.percent(row["explained_ratio"])
        slower = "slower" in lines["reason"]
        explained = f" It holds {share} of the time beyond normal." if slower else ""
        why = "; ".join(reason(line) for line in lines.to_dicts())
        parts.append(f"{row['component']}: {why}.{explained}")
    shares = [units.percent(share) for share in comparison.causes.looked_at]
    sampled = ""
    if min(comparison.causes.looked_at) < 1:
        sampled = f" (Causes were looked for in {shares[0]} and {shares[1]} of the requests.)"
    sure = _how_sure(ranking, named, beside_machine=beside_machine)
    return f"{sure}: {' '.join(parts)}{sampled}"


def _how_sure(ranking: pl.DataFrame, named: pl.DataFrame, *, beside_machine: bool) -> str:
    if beside_machine:
        return "Most unusual beside that, and perhaps because of it"
    if named["verdict"][0] == CAUSE:
        return "Most likely cause"
    first = ranking["component"][0]
    if first in named["component"]:
        return "Not told apart, and one or all of them the cause"
    return f"Surely unusual, though {first} is more so, perhaps by chance"


def _nothing_sure(ranking: pl.DataFrame) -> str:
    """Return that nothing stands out, and what is unusual all the same."""
    unusual = ranking.filter(ranking["score"] > 0)["component"].head(_NAMED).to_list()
    hint = f" Most unusual, but perhaps by chance: {', '.join(unusual)}." if unusual else ""
    return (
        "No component stands out: what is unusual is no more than chance would show, or than the "
        f"one side shows against itself.{hint}"
    )


def reason(row: Row) -> str:
    """Return why a component is suspected."""
    operation = short(row["operation"], 40)
    if row["callee"]:
        operation += f" → {row['callee']}"
    if row["reason"] == "slower":
        return (
            f"{operation} takes {units.duration(row['after'])} itself instead of "
            f"{units.duration(row['before'])}"
        )
    shares = f"{units.percent(row['after'])} instead of {units.percent(row['before'])}"
    if row["reason"] == "fails":
        return f"{operation} fails in {shares}"
    return f"{operation} calls {short(row['child'], 40)} in {shares}"


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


def label(row: Row) -> str:
    """Return the name of what a row of `differences` is about."""
    name = short(row["name"], 60)
    if row["kind"] == "component":
        part = name if row["service"] == row["name"] else f"{row['service']} → {name}"
        return f"{part} ({row['detail']})"
    return name


def amount(value: float | None, row: Row) -> str:
    """Return a figure in its unit."""
    if value is None:
        return units.MISSING
    measure = row.get("measure", "self_ns")
    if measure.endswith("_ns"):
        return units.duration(value)
    if measure == "rate_per_s":
        return units.rate(value)
    if measure.endswith("_ratio") or str(row["name"]).endswith(".utilization"):
        return units.percent(value)
    if measure.endswith("_bytes"):
        return units.size(value)
    return units.quantity(value, row["unit"])


def _change(row: Row) -> str:
    before, after = (amount(row[side], row) for side in ("before", "after"))
    return f"{before} → {after}, {relative(row['change'], row)} ({interval(row)})"


def relative(value: float | None, row: Row) -> str:
    """Return a change with its sign, relative or in the unit of the figure."""
    if value is None:
        return units.MISSING
    sign = "+" if value >= 0 else "−"
    if row["relative"]:
        return f"{sign}{units.percent(abs(value))}"
    return f"{sign}{amount(abs(value), row)}"


def interval(row: Row) -> str:
    """Return the confidence interval of a change."""
    if row["low"] is None:
        return "not tested"
    return f"{relative(row['low'], row)} to {relative(row['high'], row)}"


def short(text: object, width: int) -> str:
    """Cut text to `width` characters in its middle, where names differ least."""
    line = " ".join(str(text).split())
    if len(line) <= width:
        return line
    tail = (width - 1) // 3
    return f"{line[: width - 1 - tail]}…{line[len(line) - tail :]}"
