"""What is wrong and what to do first, in ten seconds."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from perfkit import units
from perfkit.analysis.comparison import words
from perfkit.analysis.comparison.headline import RESOURCES
from perfkit.analysis.vector.percentiles import quantiles
from perfkit.report import episodes
from perfkit.report.context import Context
from perfkit.rules import software
from perfkit.rules.evaluate import nothing_found
from perfkit.rules.plan import Step

TITLE = "Summary"
NEEDS: tuple[str, ...] = ()
EMPTY: dict[str, str] = {}

_WORTH_SAYING = 0.02
"""Ours: a saving below this share of the request time is no headline."""


def build(context: Context) -> dict[str, Any]:
    """Return the verdict, the headline numbers, the first things to do, and the strip over time."""
    timeline = context.tables.frame("timeline")
    tiles = [*_latency(context), *_load(context), *_resources(context, timeline)]
    return {
        "verdict": _verdict(context),
        "against": _against(context),
        "since": _since(context),
        "story": _story(context),
        "tiles": [tile | {"delta": _delta(context, tile["measure"])} for tile in tiles],
        "first": [_step(step) for step in context.plan.steps],
        "together": context.plan.words() if len(context.plan.steps) > 1 else "",
        "missing": _missing(context),
        "timeline": not timeline.is_empty(),
        **({"data": {"timeline": _timeline(context, timeline)}} if timeline.height else {}),
    }


def _verdict(context: Context) -> str:
    """Return one sentence: how many problems, and what mending the first would bring."""
    findings = context.findings
    facts = context.facts
    if not findings:
        if not (facts["spans"] or facts["samples"] or facts["metric_points"]):
            return "This capture is empty: nothing was recorded, so nothing can be said."
        return nothing_found(context.outcomes)
    # What is only worth knowing, of the recording say, is no problem of the program.
    problems = [finding for finding in findings if finding.severity != "info"]
    first = (problems or findings)[0]
    if not problems:
        return f"No problem found. Worth knowing: “{first.title}”."
    serious = sum(finding.severity == "high" for finding in problems)
    text = f"{_plural(len(problems), 'problem')} found"
    if len(problems) == 1:
        text += ", a serious one" if serious else ", not a serious one"
    else:
        text += f", {serious} of them serious" if serious else ", none of them serious"
    low, high = first.impact_low_ratio or 0.0, first.impact_high_ratio or 0.0
    if high >= _WORTH_SAYING:
        saving = units.percent_range(low, high)
        return f"{text}. “{first.title}” would save {saving} of all request time."
    return f"{text}: “{first.title}”." if len(problems) == 1 else f"{text}. First: “{first.title}”."


def _against(context: Context) -> str:
    """Say in one sentence what changed since the baseline; empty without one."""
    if context.baseline is None:
        return ""
    changed = words.answer(context.baseline.comparison)[0].removeprefix("Changed: ")
    return f"Against {context.baseline.name}: {changed}"


def _plural(number: int, noun: str) -> str:
    return f"{units.number(number)} {noun}{'' if number == 1 else 's'}"


def _since(context: Context) -> str:
    """Say since when it is so and for whom, in one sentence; nothing of requests, nothing said."""
    if not context.facts["entries"]:
        return ""
    if not context.tables.has_rows("trends"):
        return "The capture is too short to say since when."
    if not context.episodes or not context.episodes[0].felt:
        return "During the whole capture: no lasting change of latency or errors was seen."
    population = context.population
    episode = context.episodes[0]
    shift = episode.leading
    when = episodes.when(shift, population.origin_ns, population.end_ns)
    text = f"{when[0].upper()}{when[1:]}: {episodes.name(shift)} {episodes.size(shift)}"
    if shift["extra_ns"] and shift["extra_ns"] > 0:
        text += (
            f"; {_plural(shift['requests'], 'request')} then took "
            f"{units.duration(shift['extra_ns'])} longer in all"
        )
    trends = context.tables.frame("trends").filter(pl.col("kind") == "latency")
    spared = episodes.others(episode, trends["endpoint"].drop_nulls().unique().sort().to_list())
    if spared and shift["endpoint"] is not None:
        text += f"; {_listed(spared)} kept their pace" if len(spared) > 1 else ""
        text += f"; {spared[0]} kept its pace" if len(spared) == 1 else ""
    return f"{text}."


def _listed(names: list[str], shown: int = 2) -> str:
    if len(names) <= shown:
        return " and ".join(names)
    return f"{', '.join(names[:shown])} and {len(names) - shown} more"


def _busiest(functions: pl.DataFrame) -> str:
    """Say where the code computes, or where states are not known, where most samples are."""
    by_state = functions["running_self_ns"].count() > 0
    order = "running_self_ns" if by_state else "samples"
    most = functions.sort(order, "function", descending=[True, False], nulls_last=True)
    busiest = most.row(0, named=True)
    name = " in ".join(part for part in (busiest["function"], busiest["module"]) if part)
    if not by_state:
        return f"Most samples are in {name}: {units.percent(busiest['self_ratio'])} of them."
    if not busiest["running_self_ns"]:
        return "No thread was seen computing: what takes time here is waiting."
    share = units.percent(busiest["running_ratio"])
    return f"Most CPU time goes to {name}: {share} of what was seen."


def _story(context: Context) -> list[str]:
    """Return sentences that say how slow it is, for whom, and where the time goes."""
    sentences = []
    endpoints = context.tables.frame("endpoints")
    operations = context.tables.frame("operations")
    if endpoints.height > 1:
        slowest = endpoints.sort("p95_ns", "endpoint", descending=[True, False]).row(0, named=True)
        most = endpoints.sort("total_ns", "endpoint", descending=[True, False]).row(0, named=True)
        share = units.percent(most["share_ratio"])
        text = f"Slowest is {slowest['endpoint']} (p95 {units.duration(slowest['p95_ns'])})"
        if most["endpoint"] == slowest["endpoint"]:
            sentences.append(f"{text}, with {share} of all request time.")
        else:
            sentences.append(f"{text}; most request time, {share}, goes to {most['endpoint']}.")
    sentences.extend(_tools(context))
    if operations.height:
        top = operations.sort("critical_ns", descending=True, nulls_last=True).row(0, named=True)
        share = units.percent(top["critical_ratio"])
        sentences.append(f"The largest part of all request time, {share}, is {_spent_in(top)}.")
    elif context.tables.has_rows("functions"):
        sentences.append(_busiest(context.tables.frame("functions")))
    return sentences


def _tools(context: Context) -> list[str]:
    """Say which tools are slow: a gateway serves all of them at one endpoint."""
    tools = context.tables.frame("tools")
    if tools.height < 2:
        return []
    slowest = tools.sort("p95_ns", "tool", descending=[True, False]).row(0, named=True)
    most = tools.sort("total_ns", "tool", descending=[True, False]).row(0, named=True)
    text = f"Of the tools {slowest['tool']} is slowest (p95 {units.duration(slowest['p95_ns'])})"
    share = units.percent(most["share_ratio"])
    if most["tool"] == slowest["tool"]:
        return [f"{text} and takes most time, {share}."]
    return [f"{text}; most time, {share}, goes to {most['tool']}."]


def _spent_in(row: dict[str, Any]) -> str:
    """Say in words what an operation's own time is."""
    name, component = row["name"] or "a span without a name", row["component"]
    if row["category"] in ("server", "internal"):
        return f"in {name} of {component} itself: in its code, or in waiting that no span shows"
    where = f" ({component})" if component and component not in name else ""
    return f"spent in {name}{where}"


def _step(step: Step) -> dict[str, Any]:
    scope = step.finding.scope
    return {
        "finding": step.finding,
        "gain": step.words(),
        "risk": step.finding.risk,
        # A tool says more than the endpoint that serves all of them.
        "whom": _listed(scope.get("tools") or scope.get("endpoints") or []),
    }


def _tile(
    label: str,
    value: str,
    note: str = "",
    *,
    stat: str = "",
    measure: str = "",
    tone: str = "",
) -> dict[str, str]:
    """Make a tile: `stat` follows the filter, `measure` is what the baseline has of it."""
    return {
        "label": label,
        "value": value,
        "note": note,
        "stat": stat,
        "measure": stat or measure,
        "tone": tone,
    }


def _delta(context: Context, measure: str) -> dict[str, str] | None:
    """Return how a figure of all requests changed against the baseline; None without one."""
    baseline = context.baseline
    row = baseline.headline.get(measure) if baseline else None
    if baseline is None or row is None or row["change"] is None:
        return None
    changed = row["verdict"] in words.CHANGED
    before = words.amount(row["before"], row)
    text = words.relative(row["change"], row) if changed else "no evidence of change"
    if not row["relative"]:
        text = text.replace(" %", " points")
    # What was tested is the mean over runs, or blocks of time, and not the figure of all requests;
    # of resources the figures of both sides as a whole are said.
    of_what = f", mean of {baseline.contrast.unit.split()[0]}s" if measure not in RESOURCES else ""
    tested = row["low"] is not None
    if not tested:
        text, of_what = f"{words.relative(row['change'], row)}, not tested", ""
    compared = f"{before} → {words.amount(row['after'], row)}{of_what}"
    return {
        "text": text,
        # Beside the tile's own figure the means that were tested only confuse, where none changed.
        "before": compared if changed or not tested else "",
        "hint": f"Baseline → this capture: {compared}; change {words.interval(row)}",
        # More requests are neither better nor worse.
        "tone": row["verdict"] if measure != "rate_per_s" else "",
    }


def _latency(context: Context) -> list[Any]:
    entries = context.population.entries
    if entries.is_empty():
        return []
    p50, p95, p99 = quantiles(
        np.zeros(entries.height, dtype=np.int64),
        entries["duration_ns"].to_numpy(),
        entries["adjusted_count"].to_numpy(),
        1,
        (0.5, 0.95, 0.99),
    )[0].tolist()
    return [
        _tile("p50", units.duration(p50), "half are faster", stat="p50_ns"),
        _tile("p95", units.duration(p95), f"{p95 / p50:.1f} × p50" if p50 else "", stat="p95_ns"),
        _tile("p99", units.duration(p99), f"of {_requests(entries)}", stat="p99_ns"),
    ]


def _requests(entries: pl.DataFrame) -> str:
    return _plural(round(entries["adjusted_count"].sum()), "request")


def _load(context: Context) -> list[Any]:
    entries = context.population.entries
    if entries.is_empty():
        return []
    count = float(entries["adjusted_count"].sum())
    failed = entries.filter(pl.col("status") == "error")
    errors = float(failed["adjusted_count"].sum())
    hidden = int(entries["hidden_error"].sum())
    note = f"{units.number(round(errors))} failed" if errors else "none failed"
    if hidden:
        note += f", {units.number(hidden)} with an error inside"
    # Stretches without any data, between files of different days say, are no time of the capture.
    seconds = max(context.facts["duration_ns"], 1) / 1e9
    return [
        _tile(
            "Rate",
            units.rate(count / seconds),
            f"for {units.duration(seconds * 1e9)}",
            stat="rate_per_s",
        ),
        _tile(
            "Errors",
            units.percent(errors / count),
            note,
            stat="error_ratio",
            tone="is-bad" if errors else "",
        ),
    ]


def _resources(context: Context, timeline: pl.DataFrame) -> list[Any]:
    cores = context.facts["cores"]
    known = _amounts(timeline)
    tiles = []
    for measure, label in (("cpu_ratio", "CPU, process"), ("host_cpu_ratio", "CPU, host")):
        if (cpu := known[measure]) is not None:
            value = units.percent(cpu["mean"])
            tiles.append(_tile(label, value, _of_cores(cpu, cores), measure=measure))
            break
    if (rss := known["rss_bytes"]) is not None:
        note = f"from {units.size(rss['first'])} to {units.size(rss['last'])}"
        tiles.append(_tile("Memory, peak", units.size(rss["max"]), note, measure="rss_bytes"))
    return tiles


def _of_cores(cpu: dict[str, float], cores: int | None) -> str:
    """Say CPU in cores: a quarter of four is one that is busy all the time."""
    if not cores:
        return f"peak {units.percent(cpu['max'])}"
    mean, most = (units.number(round(cpu[name] * cores, 2)) for name in ("mean", "max"))
    return f"{mean} of {_plural(cores, 'core')}, peak {most}"


def _amounts(timeline: pl.DataFrame) -> dict[str, dict[str, float] | None]:
    """Return mean, max, first and last of each resource; null for one that was never read."""
    found: dict[str, dict[str, float] | None] = {}
    for name in ("cpu_ratio", "host_cpu_ratio", "rss_bytes"):
        values = timeline[name].drop_nulls().to_numpy()
        found[name] = (
            {
                "mean": float(values.mean()),
                "max": float(values.max()),
                "first": float(values[0]),
                "last": float(values[-1]),
            }
            if len(values)
            else None
        )
    return found


def _missing(context: Context) -> list[dict[str, str]]:
    """Return which of the three kinds of data are absent, and how to get each."""
    facts = context.facts
    kinds = (
        (
            "spans",
            "No spans: which requests were slow, and why, is not known.",
            "perfkit record --pid PID --otlp",
        ),
        ("samples", "No stack samples: which code ran is not known.", _profile(context)),
        (
            "metric_points",
            "No metrics: CPU, memory and pools over time are not known.",
            "perfkit record --pid PID",
        ),
    )
    return [{"what": what, "how": how} for fact, what, how in kinds if not facts[fact]]


def _profile(context: Context) -> str:
    """Return how to get stacks: perfkit records those of Python, and imports those of others."""
    found = software.languages(context.tables)
    if not found or "Python" in found:
        return "perfkit record --pid PID"
    return "; ".join(_PROFILES.get(name, _ANY_PROFILE) for name in sorted(found))


_PROFILES = {
    "Node.js": "node --cpu-prof, then perfkit import FILE.cpuprofile",
    "Go": "/debug/pprof/profile?seconds=30, then perfkit import FILE",
    "Java": "async-profiler -e wall -o collapsed, then perfkit import FILE",
}
_ANY_PROFILE = "a CPU profile of the process as pprof or collapsed stacks, then perfkit import FILE"

_SERIES = (
    # column, title, unit, group
    ("requests", "requests", "count", "load"),
    ("errors", "errors", "count", "load"),
    ("p50_ns", "p50", "ns", "latency"),
    ("p95_ns", "p95", "ns", "latency"),
    ("cpu_ratio", "CPU of the process", "ratio", "cpu"),
    ("host_cpu_ratio", "CPU of the host", "ratio", "cpu"),
    ("rss_bytes", "memory", "bytes", "memory"),
)


def _timeline(context: Context, timeline: pl.DataFrame) -> dict[str, Any]:
    start_ns, width_ns = timeline.select("bucket_ns", "bucket_width_ns").row(0)
    return {
        "start_ns": start_ns - context.population.origin_ns,
        "bucket_ns": width_ns,
        "series": [
            {
                "id": column,
                "title": title,
                "unit": unit,
                "group": group,
                "values": timeline[column].cast(pl.Float32).fill_null(float("nan")).to_numpy(),
            }
            for column, title, unit, group in _SERIES
            if timeline[column].count() and (group != "load" or context.facts["entries"])
        ],
    }
