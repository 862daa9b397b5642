"""PostgreSQL's log: statements with durations, and plans of auto_explain, as spans.

A line is written when a statement ends, so it began its duration earlier. Where both are logged,
the plan and the statement of one execution become one span, with the statement's duration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from perfkit import ids
from perfkit.capture import CaptureWriter
from perfkit.formats import times
from perfkit.importers.base import Format, Source
from perfkit.importers.rows import SpanRows, from_process, scaled
from perfkit.semconv import Value

NAME = "postgresql-log"
FORMAT = Format(
    title="PostgreSQL's log: durations, auto_explain",
    made_by="`log_min_duration_statement`, `auto_explain.log_min_duration`; prefix with `%m`, `%p`",
    recognised_by="lines of `LOG:  duration: … ms  statement:` or `plan:`",
    gives="spans of statements, span events (plans)",
    lacks="which request called; what stayed under the threshold; zones other than UTC and GMT",
)

_ENTRY = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) (?P<zone>[A-Z]{2,5}|[+-]\d\d(?::?\d\d)?) "
    r"(?P<rest>[^\n]{0,300}?)(?P<level>LOG|STATEMENT|DETAIL|ERROR|HINT|CONTEXT|FATAL|WARNING|NOTICE"
    r"|PANIC|INFO|DEBUG\d?|QUERY):  (?P<text>.*)",
    re.DOTALL,
)
_DURATION = re.compile(
    r"duration: (\d{1,12}(?:\.\d{1,9})?) ms(?:  (statement|plan|execute [^:\n]{0,200}"
    r"|parse [^:\n]{0,200}|bind [^:\n]{0,200}):\s*(.*))?",
    re.DOTALL,
)
_PID = re.compile(r"\[(\d{1,10})(?:-\d+)?\]")
_DATABASE = re.compile(r"([^\s@\[\]]{1,64})@([^\s@\[\]]{1,64})")
_SNIFFED = re.compile(
    rb"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[^\n]{0,300}? LOG:  duration: \d+\.\d+ ms  ", re.M
)
_QUERY = re.compile(r"Query Text: (.*?)\n(?=[A-Z(][^\n]*\(cost=|[A-Z][^\n]*\n?$)", re.DOTALL)
_JSON_QUERY = re.compile(r'"Query Text": "((?:[^"\\]|\\.)*+)"')
_MAX_ENTRY = 1 << 20


@dataclass
class _Entry:
    end_ns: int
    pid: int | None
    database: str | None
    user: str | None
    duration_ns: int
    query: str
    plan: str | None
    place: int


def sniff(head: bytes, path: Path) -> bool:
    """Recognise a logged duration."""
    del path
    return _SNIFFED.search(head) is not None


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all durations."""
    pending: dict[int | None, _Entry] = {}
    with SpanRows(source, writer) as rows:
        for number, text in _entries(source):
            entry = _parse(rows, text, number)
            if entry is None:
                continue
            before = pending.pop(entry.pid, None)
            if entry.plan is not None:
                if before is not None:
                    _add(rows, before)
                pending[entry.pid] = entry
                continue
            if before is not None and _same(before, entry):
                entry.plan = before.plan
            elif before is not None:
                _add(rows, before)
            _add(rows, entry)
        for entry in pending.values():
            _add(rows, entry)


def _entries(source: Source) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each entry: lines that begin with a tab go on with the one before."""
    lines: list[str] = []
    first, size = 0, 0
    for number, raw in source.lines():
        text = raw.decode("utf-8", "replace")
        if text.startswith(("\t", " ")) and lines:
            size += len(text)
            if size < _MAX_ENTRY:
                lines.append(text.removeprefix("\t"))
            continue
        if lines:
            yield first, "\n".join(lines)
        first, lines, size = number, [text[:_MAX_ENTRY]], 0
    if lines:
        yield first, "\n".join(lines)


def _parse(rows: SpanRows, text: str, number: int) -> _Entry | None:
    entry = _ENTRY.fullmatch(text)
    if entry is None:
        rows.reject("line that is no entry of a log")
        return None
    duration = _DURATION.fullmatch(entry["text"]) if entry["level"] == "LOG" else None
    if duration is None or duration[2] is None or duration[2].startswith(("parse", "bind")):
        return None  # of something else, which is in the log too
    zone = entry["zone"]
    if zone not in ("UTC", "GMT") and zone[0] not in "+-":
        rows.reject("entry in a time zone that has only a name; set log_timezone to UTC")
        return None
    offset = zone if zone[0] in "+-" else "+00:00"
    end_ns = times.from_text(f"{entry['time']}{offset if ':' in offset else offset + ':00'}")
    duration_ns = scaled(duration[1], 10**6)
    if end_ns is None or duration_ns is None:
        rows.reject("entry without a plausible time")
        return None
    pid = _PID.search(entry["rest"])
    database = _DATABASE.search(entry["rest"])
    plan = query = None
    if duration[2] == "plan":
        plan = duration[3] or ""
        found = _QUERY.match(plan) or _JSON_QUERY.search(plan)
        query = found[1] if found else ""
    return _Entry(
        end_ns,
        int(pid[1]) if pid else None,
        database[2] if database else None,
        database[1] if database else None,
        duration_ns,
        (duration[3] or "") if query is None else query,
        plan,
        number,
    )


def _same(plan: _Entry, statement: _Entry) -> bool:
    inside = plan.end_ns - plan.duration_ns >= statement.end_ns - statement.duration_ns - 10**6
    return inside and plan.query.split() == statement.query.split()


def _add(rows: SpanRows, entry: _Entry) -> None:
    unique = f"{rows.source.content_name} {entry.place} {entry.end_ns} {entry.pid}"
    trace = ids.trace_id_from_text(f"trace {unique}")
    span_id = ids.span_id_from_text(f"span {unique}")
    attributes: dict[str, Value] = {
        "db.system.name": "postgresql",
        "db.namespace": entry.database,
        "db.query.text": entry.query or None,
        "db.user": entry.user,
        "process.pid": entry.pid,
    }
    name = (entry.query.split(None, 1) or ["statement"])[0].upper()[:40]
    start_ns = entry.end_ns - entry.duration_ns
    good = rows.add(trace, span_id, None, name, start_ns, entry.duration_ns,
                    from_process("postgresql"), attributes, kind="client")  # fmt: skip
    if good and entry.plan and span_id is not None:
        rows.event(trace, span_id, entry.end_ns, "plan", {"db.query.plan": entry.plan})
