"""How far this report can be trusted: what was captured, sampled, lost, and seen by rules."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, get_args

from perfkit import units
from perfkit.report import weaknesses
from perfkit.report.columns import Column, guess
from perfkit.report.context import Context
from perfkit.report.templates import heading, value
from perfkit.report.text import clean_all
from perfkit.rules.model import State

TITLE = "Capture health"
NEEDS: tuple[str, ...] = ()
EMPTY: dict[str, str] = {}


def build(context: Context) -> dict[str, Any]:
    """Return sources, losses, notes, and the rules that did not look."""
    info = clean_all(asdict(context.tables.capture.info))
    by_state: dict[str, list[Any]] = {state: [] for state in get_args(State)}
    for outcome in context.outcomes:
        by_state[outcome.state].append(outcome)
    return {
        "info": info,
        "finished": context.tables.capture.finished,
        "amounts": _amounts(context.facts),
        "warnings": weaknesses.find(context.tables),
        "sources": _sources(info["sources"]),
        "outcomes": by_state,
        "filters": describe_filters(context),
    }


def _amounts(facts: dict[str, Any]) -> list[tuple[str, str]]:
    sampled = (
        f"{units.number(facts['samples'])} ({units.duration(facts['sampled_ns'])} of thread time)"
        if facts["sampled_ns"]
        else units.number(facts["samples"])
    )
    return [
        (
            "Time",
            f"{units.timestamp(facts['start_ns'])} for {units.duration(facts['duration_ns'])}",
        ),
        ("Requests", units.number(facts["entries"])),
        ("Traces", units.number(facts["traces"])),
        ("Spans", units.number(facts["spans"])),
        ("Stack samples", sampled),
        ("CPU time in code that no look saw", _unseen(facts)),
        ("Samples and requests", facts["samples_joined"] or units.MISSING),
        ("Threads", units.number(facts["threads"])),
        ("Processes", units.number(facts["processes"])),
        ("Metric points", units.number(facts["metric_points"])),
        ("Cores", units.number(facts["cores"])),
    ]


def _unseen(facts: dict[str, Any]) -> str:
    unseen_ns = facts["unseen_ns"]
    seen_ns = (facts["running_ns"] or 0) + (facts["importing_ns"] or 0)
    if unseen_ns is None or not unseen_ns + seen_ns:
        return units.MISSING
    share = units.percent(unseen_ns / (unseen_ns + seen_ns))
    return f"{units.duration(unseen_ns)}, {share} of all that threads used"


def _sources(sources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the sources with their settings; files that were read in the same way are one."""
    merged: dict[str, dict[str, Any]] = {}
    for source in sources:
        values = {key: item for key, item in source.items() if item not in (None, [], {}, "")}
        if isinstance(values.get("command"), list):
            values["command"] = " ".join(map(str, values["command"]))
        name, file = str(values.pop("name", "source")), values.pop("file", None)
        key = json.dumps([name, values], sort_keys=True, default=str)
        tables = [
            _table(name, values.pop(name)) for name in list(values) if _is_table(values[name])
        ]
        made = {"name": name, "settings": values, "tables": tables, "files": []}
        found = merged.setdefault(key, made)
        if file is not None:
            found["files"].append(file)
    return list(merged.values())


def _is_table(item: Any) -> bool:
    return isinstance(item, list) and all(isinstance(row, dict) for row in item)


def _table(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    columns = guess(rows)
    return {
        "name": heading(name),
        "columns": columns,
        "rows": [_filled(columns, row) for row in rows],
    }


def _filled(columns: list[Column], row: dict[str, Any]) -> dict[str, Any]:
    texts = {column.key for column in columns if column.kind == "text"}
    return {
        column.key: value(row.get(column.key), column.key)
        if column.key in texts
        else row.get(column.key)
        for column in columns
    }


def describe_filters(context: Context) -> list[str]:
    """Return the filters that the report was made with, in words."""
    filters = context.tables.filters
    texts = {
        "service": filters.service,
        "endpoint": filters.endpoint,
        "tool": filters.tool,
        "from": units.timestamp(filters.since_ns) if filters.since_ns is not None else None,
        "before": units.timestamp(filters.until_ns) if filters.until_ns is not None else None,
        "at least": units.duration(filters.min_duration_ns) if filters.min_duration_ns else None,
        "status": filters.status,
        "where": filters.where,
    }
    return [f"{name} {text}" for name, text in texts.items() if text is not None]
