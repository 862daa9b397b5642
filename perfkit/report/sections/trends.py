"""What left its baseline, when, for how long, by how much, and who suffered."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from perfkit import units
from perfkit.analysis.statistics.drift import SURE
from perfkit.analysis.waits.told_once import told_once
from perfkit.report import episodes
from perfkit.report.columns import Column
from perfkit.report.context import Context
from perfkit.report.episodes import Episode, Shift

TITLE = "Trends and spikes"
NEEDS: tuple[str, ...] = ()
EMPTY: dict[str, str] = {}

_EPISODES = 12
_SHIFTS = 8
_CONTENDED = 20
_CHARTS = 40
_FIRST = 6
"""Charts that are shown at once; the others are behind a click."""
_DRIFTED = 0.2
"""Ours: a drift that changes less over the whole capture is not told."""

_WAITED_FOR = ("kind", "resource", "service", "instance")
"""What tells the resources that somebody waited for apart."""

_CLOCKS = ("process.uptime", "system.uptime")
"""What grows because time goes by."""

_CONTENTION = (
    Column("resource", "Resource", "text", "wrap"),
    Column("kind", "Kind", "text", "muted nowrap"),
    Column("at_ns", "First after", hint="Since the start of the capture"),
    Column("episodes", "Times", hint="Separate stretches of time"),
    Column("contended_ns", "For", hint="Time in which somebody waited, added up"),
    Column("level", "At most", "text", "nowrap", hint="How many waited at once, or how much"),
    Column("wait_ns", "Waited", hint="Added up over all that waited"),
    Column("began", "Requests then", hint="Those that began in such a time"),
    Column("extra_ns", "Extra time", hint="By how much requests that began then took longer"),
    Column("worst_endpoint", "Suffered most", "text", "wrap"),
    Column("seen_by", "Seen by", "text", "muted", hint="Figures are those of the first"),
)
_DRIFTS = (
    Column("name", "Series", "text", "wrap"),
    Column("from", "At the start", "text", "nowrap"),
    Column("to", "At the end", "text", "nowrap"),
    Column("change_ratio", "Change", hint="From the start to the end"),
)


def build(context: Context) -> dict[str, Any]:
    """Return the episodes, who waited for what, slow drifts, and a chart of each series."""
    charts = _charts(context)
    waiting = told_once(context.tables.frame("contention"), context.tables.frame("pools"))
    contention = _contention(waiting, context.population.origin_ns)
    told = context.episodes[:_EPISODES]
    drawn = {"charts": charts, "first": _FIRST} if charts else {}
    waits = _stretches(waiting, contention[:_CONTENDED], context) if contention else {}
    data = {
        **drawn,
        **waits,
        **({"episodes": [_scope(one, context) for one in told]} if told else {}),
    }
    return {
        "episodes": [_episode(one, context) for one in told],
        "more_episodes": max(len(context.episodes) - _EPISODES, 0),
        "long_enough": context.tables.has_rows("trends"),
        "contention": contention[:_CONTENDED],
        "contention_columns": _CONTENTION,
        "more_contention": max(len(contention) - _CONTENDED, 0),
        "drifts": _drifts(context),
        "drift_columns": _DRIFTS,
        "charts": bool(charts),
        **({"data": data} if data else {}),
    }


def _episode(episode: Episode, context: Context) -> dict[str, Any]:
    population = context.population
    shift = episode.leading
    when = episodes.when(shift, population.origin_ns, population.end_ns)
    start = max(episode.start_ns - population.origin_ns, 0)
    return {
        "when": f"{when[0].upper()}{when[1:]}",
        "felt": episode.felt,
        "into": units.duration(start),
        "range": {
            "from_ns": start,
            "to_ns": min(episode.end_ns, population.end_ns) - population.origin_ns,
        },
        "exact": units.duration(shift["bucket_width_ns"]),
        "lines": [_line(one) for one in episode.shifts[:_SHIFTS]],
        "more": max(len(episode.shifts) - _SHIFTS, 0),
        "suffered": _suffered(episode),
    }


def _line(shift: Shift) -> dict[str, str]:
    return {
        "name": episodes.name(shift),
        "size": episodes.size(shift),
        "shape": f"{shift['shape']} {shift['direction']}",
        "peak": episodes.amount(shift, shift["peak"]),
    }


def _suffered(episode: Episode) -> str:
    """Say who suffered, from the shift that saw most requests."""
    known = [one for one in episode.shifts if one["extra_ns"] is not None]
    if not known:
        return ""
    shift = max(known, key=lambda one: (one["endpoint"] is None, one["extra_ns"]))
    requests = f"{units.number(shift['requests'])} requests were in flight"
    if shift["extra_ns"] <= 0:
        return f"{requests} meanwhile and took no longer than at other times."
    text = f"{requests} meanwhile and took {units.duration(shift['extra_ns'])} longer in all"
    if shift["worst_endpoint"]:
        text += f", most of it {shift['worst_endpoint']}"
        text += f" ({units.duration(shift['worst_extra_ns'])})"
    return f"{text}."


def _contention(waiting: pl.DataFrame, origin_ns: int) -> list[dict[str, Any]]:
    """Return one row a resource that somebody waited for, most waiting first."""
    if waiting.is_empty():
        return []
    worst = pl.col("worst_endpoint").sort_by("worst_extra_ns", descending=True, nulls_last=True)
    found = waiting.group_by(_WAITED_FOR, maintain_order=True).agg(
        at_ns=(pl.col("start_ns").min() - origin_ns).clip(0),
        episodes=pl.len(),
        contended_ns=pl.col("contended_ns").sum(),
        peak_level=pl.col("peak_level").max(),
        unit=pl.col("unit").first(),
        wait_ns=_known_sum("wait_ns"),
        began=_known_sum("began"),
        extra_ns=_known_sum("extra_ns"),
        worst_endpoint=worst.first(),
        seen_by=pl.col("seen_by").unique(maintain_order=True).str.join(", "),
    )
    return [row | {"level": _level(row["peak_level"], row["unit"])} for row in found.to_dicts()]


def _stretches(
    waiting: pl.DataFrame, rows: list[dict[str, Any]], context: Context
) -> dict[str, Any]:
    """Return each stretch of waiting with the table's row of its resource, for any time range."""
    place = pl.DataFrame(
        {name: [row[name] for row in rows] for name in _WAITED_FOR},
        schema=dict.fromkeys(_WAITED_FOR, pl.String),
    ).with_row_index("row")
    found = (
        waiting.with_columns(pl.col(_WAITED_FOR).cast(pl.String))
        .join(place, on=_WAITED_FOR, nulls_equal=True, maintain_order="left")
        .with_columns((pl.col("start_ns", "end_ns") - context.population.origin_ns).clip(0))
    )
    names = ("start_ns", "end_ns", "contended_ns", "peak_level", "wait_ns", "began", "extra_ns")
    endpoints = found["worst_endpoint"].fill_null("")
    strings = endpoints.unique(maintain_order=True)
    numbers = {
        name: found[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in names
    }
    numbers["worst_extra_ns"] = (
        found["worst_extra_ns"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    )
    return {
        "waits": {
            "strings": strings.to_list(),
            "row": found["row"].to_numpy(),
            "units": [row["unit"] for row in rows],
            "endpoint": endpoints.replace_strict(
                strings, pl.int_range(len(strings), eager=True)
            ).to_numpy(),
            **numbers,
        }
    }


def _scope(episode: Episode, context: Context) -> dict[str, Any]:
    """Return when an episode was, and of which endpoints alone; none where it is of all."""
    endpoints = {shift["endpoint"] for shift in episode.shifts}
    return {
        "from_ns": episode.start_ns - context.population.origin_ns,
        "to_ns": episode.end_ns - context.population.origin_ns,
        "endpoints": sorted(endpoints) if None not in endpoints else [],
    }


def _known_sum(name: str) -> pl.Expr:
    return pl.when(pl.col(name).is_not_null().any()).then(pl.col(name).sum())


def _level(most: float | None, unit: str | None) -> str:
    """Write how much waiting there was at most: `11 requests waiting`, `1 thread`, `94 %`."""
    if most is None:
        return units.MISSING
    if unit in ("1", "share of time", None):
        return units.percent(most)
    if unit == "s":  # seconds waited per second: as many waited at once
        return f"{units.number(most)} waiting"
    noun, space, rest = unit.strip("{}").partition(" ")
    noun = noun.removesuffix("s") + ("" if most == 1 else "s")
    return f"{units.number(most)} {noun}{space}{rest}"


def _drifts(context: Context) -> list[dict[str, Any]]:
    """Return series that went slowly one way through the whole capture."""
    trends = context.tables.frame("trends").filter(
        pl.col("baseline") == "drift",
        pl.col("trend_p") < SURE,
        pl.col("typical") != 0,
        ~pl.col("measure").is_in(_CLOCKS),
    )
    moved = [(row, ends) for row in trends.to_dicts() if (ends := drift_ends(row))]
    moved.sort(key=lambda one: -abs(one[1][1] - one[1][0]) / abs(one[0]["typical"]))
    return [
        {
            "name": episodes.name(row),
            "from": episodes.amount(row, first),
            "to": episodes.amount(row, last),
            "change_ratio": last / first - 1 if first else None,
        }
        for row, (first, last) in moved
    ]


def drift_ends(row: dict[str, Any]) -> tuple[float, float] | None:
    """Return where a series begins and ends on its slope; None when that is hardly apart.

    The slope goes through the typical value in the middle, and never below zero.
    """
    half = row["slope_per_s"] * (row["last_ns"] - row["first_ns"]) / 2e9
    if 2 * abs(half) < _DRIFTED * abs(row["typical"]):
        return None
    return max(row["typical"] - half, 0.0), max(row["typical"] + half, 0.0)


def _charts(context: Context) -> list[dict[str, Any]]:
    """Return a chart of each series, p50 and p95 in one: all requests, then what left its level."""
    trends = context.tables.frame("trends")
    if trends.is_empty():
        return []
    series = context.tables.frame("series").partition_by("series_id", as_dict=True)
    shifts = context.tables.frame("shifts").partition_by("series_id", as_dict=True)
    grouped: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in trends.to_dicts():
        what = row["kind"] if row["kind"] == "latency" else row["measure"]
        key = (what, row["service"], row["endpoint"], row["instance"], row["attributes"])
        grouped.setdefault(key, []).append(row)
    ranked = sorted(grouped.values(), key=_rank)
    return [_chart(rows, series, shifts, context) for rows in ranked[:_CHARTS]]


def _rank(rows: list[dict[str, Any]]) -> tuple[Any, ...]:
    row = rows[0]
    whole = row["kind"] != "resource" and row["endpoint"] is None
    moved = sum(one["shifts"] for one in rows)
    order = {"rate": 0, "errors": 1, "latency": 2, "resource": 3}[row["kind"]]
    return (not whole, moved == 0, order == 3, -order if moved else order, row["series_id"])


def _chart(
    rows: list[dict[str, Any]],
    series: dict[tuple[Any, ...], pl.DataFrame],
    shifts: dict[tuple[Any, ...], pl.DataFrame],
    context: Context,
) -> dict[str, Any]:
    origin_ns = context.population.origin_ns
    width = rows[0]["bucket_width_ns"]
    start = min(int(series[row["series_id"],]["bucket_ns"][0]) for row in rows)
    end = max(int(series[row["series_id"],]["bucket_ns"][-1]) for row in rows)
    first = rows[0]
    title = episodes.name(first)
    if first["kind"] == "latency":
        title = f"Latency of {first['endpoint'] or 'all requests'}"
    return {
        "title": f"{title[0].upper()}{title[1:]}" if first["kind"] != "resource" else title,
        "endpoint": first["endpoint"],
        "start_ns": start - origin_ns,
        "bucket_ns": width,
        "series": [
            {
                "title": episodes.short(row),
                "unit": episodes.page_unit(row),
                "typical": row["typical"] if row["baseline"] == "level" else None,
                "values": _values(
                    series[row["series_id"],], start, width, (end - start) // width + 1
                ),
            }
            for row in rows
        ],
        "shifts": [
            {
                "from_ns": max(shift["start_ns"] - origin_ns, 0),
                "to_ns": shift["end_ns"] - origin_ns,
                "label": f"{episodes.short(shift)} {episodes.size(shift)}",
            }
            for row in rows
            for shift in (
                shifts[row["series_id"],].to_dicts() if (row["series_id"],) in shifts else []
            )
        ],
    }


def _values(points: pl.DataFrame, start: int, width: int, count: int) -> Any:
    values = np.full(count, np.nan, dtype=np.float32)
    places = (points["bucket_ns"].to_numpy() - start) // width
    values[places] = points["value"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return values
