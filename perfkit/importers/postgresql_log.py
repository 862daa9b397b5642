"""PostgreSQL's log: statements with durations, and plans of auto_explain, as spans.

An entry is written when a statement ends, so it began its duration earlier. Where both are logged,
the plan and the statement of one execution become one span, with the statement's duration. A plan
comes before its statement; of a prepared one it comes behind, when the portal is closed.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from perfkit import ids, units
from perfkit.capture import CaptureWriter
from perfkit.importers import postgresql_entries, postgresql_messages
from perfkit.importers.base import Format, Source
from perfkit.importers.postgresql_entries import Entry, Unusable
from perfkit.importers.postgresql_messages import Message
from perfkit.importers.rows import Id, SpanRows, from_process, scaled
from perfkit.semconv import Value

NAME = "postgresql-log"
FORMAT = Format(
    title="PostgreSQL's log: durations, auto_explain",
    made_by="`log_min_duration_statement`, `auto_explain.log_min_duration`; `log_destination` "
    "`jsonlog` or `csvlog`, or `stderr` with `%m` and `%p` in the prefix",
    recognised_by="lines of `LOG:  duration: … ms`, in the languages of PostgreSQL; the fields of "
    "csvlog and jsonlog",
    gives="spans of statements with their parameters, span events (plans)",
    lacks="which request called; what stayed under the threshold; parsing and binding (a note has "
    "their sum)",
    tried="PostgreSQL 15.18 (stderr with ten prefixes, csvlog, jsonlog; German)",
)

_CLOCK_NS = 10**6
"""Times are written to the ms."""
_MAX_PROCESSES = 10_000
_VERB = re.compile(r"(?:\s++|/\*.*?\*/|--[^\n]*+)*+(\S++)", re.DOTALL)
_SERVER = from_process("postgresql")


@dataclass
class _Statement:
    entry: Entry
    duration_ns: int
    query: str
    plan: str | None = None
    executed: bool = False
    parameters: dict[str, str] = field(default_factory=dict)
    inner: list[_Statement] = field(default_factory=list)
    """Statements of functions that it called, of which there are plans."""

    @property
    def start_ns(self) -> int:
        return self.entry.end_ns - self.duration_ns


class _Added(NamedTuple):
    trace: Id
    span_id: int
    start_ns: int
    duration_ns: int


@dataclass
class _Process:
    """What is to be remembered of one server process."""

    plans: list[_Statement] = field(default_factory=list)
    """Those whose statement is still to come."""
    last: _Statement | None = None
    """The last statement, whose parameters and whose plan may follow."""
    announced: Message | None = None
    """What was logged of a statement before it ran."""
    parameters: dict[str, str] = field(default_factory=dict)
    """Of what was logged last: they follow it in an entry of their own."""
    millisecond: int = 0
    equal: Counter[tuple[int, str]] = field(default_factory=Counter)


def sniff(head: bytes, path: Path) -> bool:
    """Recognise the fields of csvlog and jsonlog, or a logged duration."""
    del path
    return postgresql_entries.sniff(head)


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all durations."""
    with SpanRows(source, writer) as rows:
        log = _Log(rows)
        try:
            for entry in postgresql_entries.read(source):
                if isinstance(entry, Unusable):
                    rows.reject(str(entry))
                else:
                    log.take(entry)
        finally:  # what was read before a damage
            log.finish()
    if log.coarse:
        writer.note(
            f"{source.name} has times to the second: when a statement began is known no better; "
            "%m in log_line_prefix says more"
        )
    if log.untold:
        writer.note(
            f"{source.name}: {units.number(log.untold)} entries of parsing, binding or of "
            "statements without a text are no spans"
        )


class _Log:
    """Puts the entries of each server process together."""

    def __init__(self, rows: SpanRows) -> None:
        self._rows = rows
        self._processes: dict[int | None, _Process] = {}
        self.coarse = 0
        self.untold = 0

    def take(self, entry: Entry) -> None:
        """Take the next entry of the log."""
        process = self._processes.get(entry.pid)
        if process is None:
            if len(self._processes) >= _MAX_PROCESSES:
                self.finish()
            process = self._processes[entry.pid] = _Process()
        message = postgresql_messages.parse(entry.text)
        if message is None:
            process.parameters.update(postgresql_messages.parameters(entry.text))
            return
        values = postgresql_messages.parameters(entry.detail or "")
        if message.kind == "announced":
            process.announced = message
        elif message.kind == "untold" or (message.query is None and process.announced is None):
            self.untold += 1
        else:
            self._duration(process, entry, message, values)
            return
        process.parameters = values

    def _duration(
        self, process: _Process, entry: Entry, message: Message, values: dict[str, str]
    ) -> None:
        told = message
        if message.query is None and process.announced is not None:
            told, values = process.announced, process.parameters
        duration_ns = scaled(message.ms, 10**6)
        if duration_ns is None:
            self._rows.reject("entry with an implausible duration")
            return
        statement = _Statement(entry, duration_ns, told.query or "", message.plan, told.executed,
                               values)  # fmt: skip
        self.coarse += entry.coarse
        if message.kind == "plan":
            self._plan(process, statement)
        else:
            self._ended(process, statement)
            process.parameters = values

    def finish(self) -> None:
        """Give what is still remembered."""
        for process in self._processes.values():
            self._give_last(process)
            for plan in process.plans:
                self._add(process, plan)
        self._processes.clear()

    def _plan(self, process: _Process, plan: _Statement) -> None:
        last = process.last
        late = last is not None and last.executed and last.plan is None and _same_text(plan, last)
        if last is not None and late and plan.duration_ns <= last.duration_ns + _CLOCK_NS:
            last.plan = plan.plan
        else:
            process.plans.append(plan)

    def _ended(self, process: _Process, statement: _Statement) -> None:
        process.announced = None
        self._give_last(process)
        for plan in process.plans:
            inside = plan.start_ns >= statement.start_ns - _CLOCK_NS
            if inside and statement.plan is None and _same_text(plan, statement):
                statement.plan = plan.plan
            elif inside:
                statement.inner.append(plan)
            else:
                self._add(process, plan)
        process.plans.clear()
        process.last = statement

    def _give_last(self, process: _Process) -> None:
        last, process.last = process.last, None
        if last is not None:
            added = self._add(process, last)
            for plan in last.inner:
                self._add(process, plan, added)

    def _add(
        self, process: _Process, statement: _Statement, caller: _Added | None = None
    ) -> _Added | None:
        entry = statement.entry
        start_ns = statement.start_ns
        if caller is not None:  # within it, as far as the clock's ms hide that
            latest_ns = caller.start_ns + caller.duration_ns - statement.duration_ns
            start_ns = max(caller.start_ns, min(start_ns, latest_ns))
        # Equal in every shape of the log, so that a statement that is in two of them is told.
        if process.millisecond != entry.end_ns:
            process.millisecond = entry.end_ns
            process.equal.clear()
        key = (statement.duration_ns, statement.query)
        process.equal[key] += 1
        unique = f"{entry.pid} {entry.end_ns} {process.equal[key]} {statement.duration_ns} "
        unique += statement.query
        span_id = ids.span_id_from_text(f"span {unique}")
        trace = caller.trace if caller else ids.trace_id_from_text(f"trace {unique}")
        attributes: dict[str, Value] = {
            "db.system.name": "postgresql",
            "db.namespace": entry.database,
            "db.query.text": statement.query or None,
            "db.query.id": entry.query_id,
            "db.user": entry.user,
            "client.address": entry.client,
            "postgresql.application_name": entry.application,
            "process.pid": entry.pid,
        }
        for number, value in statement.parameters.items():
            attributes[f"db.query.parameter.{number}"] = value
        verb = _VERB.match(statement.query)
        good = self._rows.add(
            trace,
            span_id,
            caller.span_id if caller else None,
            verb[1].upper()[:40] if verb else "STATEMENT",
            start_ns,
            statement.duration_ns,
            _SERVER,
            attributes,
            kind="client",
            inferred=caller is not None,
        )
        if not good or span_id is None:
            return None
        if statement.plan:
            self._rows.event(trace, span_id, entry.end_ns, "plan",
                             {"db.query.plan": statement.plan})  # fmt: skip
        return _Added(trace, span_id, start_ns, statement.duration_ns)


def _same_text(plan: _Statement, statement: _Statement) -> bool:
    return plan.query.split() == statement.query.split()
