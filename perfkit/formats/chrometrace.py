"""py-spy's Chrome trace (`-f chrometrace`): begin and end events to rows of `samples`.

py-spy writes events only when a thread's stack changes, so a row is an interval in which one stack
stayed. What it writes has traps:

- Events of processes that py-spy follows (`--subprocesses`) are told apart by the root frames
  `process N:"command"` alone: the stack is kept by `tid`, and the event's `pid` may be wrong.
- `tid` is the pthread identity. With `-t` the root frame `thread (TID): NAME` has the OS thread id
  and the name. Without it the pthread identity is all there is, and stands in the column `tid`.
- Forked processes have threads of equal pthread identity, and the stack of one ends that of another
  in every round of looks. So a stack is taken to last until the next look at its own process.
- A thread that dies is never closed, only at the end of the file.
- `ts` is in µs since the recorder started; the file does not say when that was.

The root frames for processes and threads become columns and are not part of the stacks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from perfkit.batch import Batch
from perfkit.errors import InputError
from perfkit.stacks import Frame, StackTable

PROCESS_FRAME = re.compile(r"process (\d+)(?::|$)")
THREAD_FRAME = re.compile(r"thread \((0[xX][0-9a-fA-F]+|\d+)\)(?:: (.*))?$", re.DOTALL)
"""Names of the root frames that say which process and which thread a stack belongs to."""
_MAX_TS_US = 10 * 366 * 86_400 * 10**6
_MAX_ID = 2**63
NO_FRAMES = Frame("(no Python frames)")
"""Stack of a thread in which py-spy saw no Python code, as while an interpreter starts."""
_CANDIDATES = 16
# A process that was missed in so many rounds of looks, while others with a thread of the same
# identity were seen, is gone. A few misses in a row are looks that failed.
_MISSED_ROUNDS = 10

Owner = tuple[int | None, int, str | None]
"""(pid, OS thread id, thread name)"""


class _Args(msgspec.Struct):
    filename: str | None = None
    line: int | None = None


class _Event(msgspec.Struct):
    ph: str
    ts: float
    tid: int
    name: str = ""
    pid: int | None = None
    args: _Args | None = None


class _Document(msgspec.Struct, rename="camel"):
    trace_events: list[_Event]


_list = msgspec.json.Decoder(list[_Event])
_document = msgspec.json.Decoder(_Document)


@dataclass(frozen=True)
class Trace:
    """The events of one file, in order."""

    events: list[_Event]
    truncated: bool
    length_ns: int
    """Time from the start of the recorder to the last event."""


def load(data: bytes) -> Trace:
    """Parse a file; of one that was cut off, the whole events. Raises InputError."""
    truncated = False
    try:
        events = _decode(data)
    except InputError:
        events = _decode_truncated(data)
        truncated = True
    length_us = max((event.ts for event in events if 0 <= event.ts <= _MAX_TS_US), default=0)
    return Trace(events, truncated, round(length_us * 1000))


def _decode(data: bytes) -> list[_Event]:
    try:
        if data.lstrip()[:1] == b"{":
            return _document.decode(data).trace_events
        return _list.decode(data)
    except msgspec.ValidationError as error:
        raise InputError(f"not a py-spy Chrome trace: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"not valid JSON: {error}") from error


def _decode_truncated(data: bytes) -> list[_Event]:
    """Decode what is whole: up to one of the last closing braces."""
    end = len(data)
    closing = b"]}" if data.lstrip()[:1] == b"{" else b"]"
    for _ in range(_CANDIDATES):
        end = data.rfind(b"}", 0, end)
        if end < 0:
            break
        try:
            return _decode(data[: end + 1] + closing)
        except InputError:
            continue
    _decode(data)  # says what is wrong and where
    raise AssertionError("the data did not decode before")


@dataclass
class _Open:
    """A stack that a process was last seen to have, since when, and in which round of looks."""

    stack_id: int
    owner: Owner
    since_us: float
    round: int


@dataclass
class _Thread:
    """The stack of one pthread identity as the events so far left it."""

    names: list[str] = field(default_factory=list)
    stack_ids: list[int | None] = field(default_factory=list)
    """Stack id at each depth; null for the root frames that name processes and the thread."""
    owners: list[Owner] = field(default_factory=list)
    """The owner as known at each depth."""
    look_us: float | None = None
    """When the events at hand were seen; those of one look have the same time."""
    open: dict[int | None, _Open] = field(default_factory=dict)
    """By process, what is not yet written."""
    seen_pid: int | None = None
    """The process that was seen last."""
    round: int = 0


def to_batch(
    trace: Trace,
    stacks: StackTable,
    *,
    anchor_wall_ns: int | None = None,
    pid: int | None = None,
    deaths: Mapping[int, int] | None = None,
) -> Batch:
    """Turn events into intervals.

    `anchor_wall_ns` is the Unix time of `ts` 0; without it `ts_ns` is null. `pid` is the recorded
    process, for events that do not say theirs. `deaths` maps an OS thread id to the Unix time when
    the thread was last seen alive: what py-spy reports of it afterwards is cut off.
    """
    return _Intervals(stacks, anchor_wall_ns, pid, deaths or {}).run(trace)


class _Intervals:
    def __init__(
        self,
        stacks: StackTable,
        anchor_wall_ns: int | None,
        pid: int | None,
        deaths: Mapping[int, int],
    ) -> None:
        self._stacks = stacks
        self._anchor_ns = anchor_wall_ns
        self._pid = pid
        self._deaths = deaths if anchor_wall_ns is not None else {}
        self._threads: dict[int, _Thread] = {}
        self._children: dict[tuple[int | None, str, str, int], int] = {}
        self._rows: list[tuple[int | None, int, int | None, int, str | None, int]] = []
        self._batch = Batch()

    def run(self, trace: Trace) -> Batch:
        for event in trace.events:
            if not 0 <= event.ts <= _MAX_TS_US or not 0 <= event.tid < _MAX_ID:
                self._batch.reject("event with an impossible time or thread")
            elif event.ph == "B":
                self._begin(event)
            elif event.ph == "E":
                self._end(event)
            else:
                self._batch.reject("event that neither begins nor ends a frame")
        for thread in self._threads.values():
            self._take_look(thread)
            for seen in thread.open.values():
                self._emit(seen, trace.length_ns / 1000)
        if trace.truncated:
            self._batch.reject("end of the file, which is cut off")
        names = ("ts_ns", "duration_ns", "pid", "tid", "thread_name", "stack_id", "count")
        self._batch.add_rows("samples", names, [(*row, 1) for row in self._rows])
        return self._batch

    def _begin(self, event: _Event) -> None:
        thread = self._threads.setdefault(event.tid, _Thread())
        self._look(thread, event.ts)
        parent_id = thread.stack_ids[-1] if thread.stack_ids else None
        owner = thread.owners[-1] if thread.owners else (self._event_pid(event), event.tid, None)
        stack_id: int | None = None
        header = self._header(event, owner) if parent_id is None else None
        if header is None:
            stack_id = self._child(event, parent_id, thread)
        else:
            owner = header
        thread.names.append(event.name)
        thread.stack_ids.append(stack_id)
        thread.owners.append(owner)

    def _event_pid(self, event: _Event) -> int | None:
        pid = event.pid if event.pid is not None else self._pid
        return pid if pid is not None and 0 <= pid < _MAX_ID else None

    @staticmethod
    def _header(event: _Event, owner: Owner) -> Owner | None:
        """Return the owner that a root frame names, or null for an ordinary frame."""
        if event.args is not None and event.args.filename:
            return None
        pid, tid, thread_name = owner
        if match := PROCESS_FRAME.match(event.name):
            return (parse_id(match[1]) or pid), tid, thread_name
        if match := THREAD_FRAME.match(event.name):
            return pid, (parse_id(match[1]) or tid), match[2]
        return None

    def _child(self, event: _Event, parent_id: int | None, thread: _Thread) -> int:
        args = event.args
        file, line = (args.filename or "", args.line or 0) if args is not None else ("", 0)
        key = (parent_id, event.name, file, line)
        stack_id = self._children.get(key)
        if stack_id is None:
            depth = len(thread.stack_ids) - thread.stack_ids.count(None)
            frame = Frame(event.name, file, line if 0 < line < 2**31 else None)
            stack_id = self._children[key] = self._stacks.child(parent_id, frame, depth)
        return stack_id

    def _end(self, event: _Event) -> None:
        thread = self._threads.get(event.tid)
        if thread is None or event.name not in thread.names:
            self._batch.reject("end of a frame that did not begin")
            return
        self._look(thread, event.ts)
        while thread.names:
            name = thread.names.pop()
            thread.stack_ids.pop()
            thread.owners.pop()
            if name == event.name:
                break

    def _look(self, thread: _Thread, now_us: float) -> None:
        """Take in what the last look saw, when this event belongs to the next one."""
        if thread.look_us is None or now_us > thread.look_us:
            self._take_look(thread)
            thread.look_us = now_us

    def _take_look(self, thread: _Thread) -> None:
        """A look is complete: write what its process had before, and begin what it has now."""
        if thread.look_us is None:
            return
        if not thread.stack_ids:
            if (ended := thread.open.pop(thread.seen_pid, None)) is not None:
                self._emit(ended, thread.look_us)
            return
        owner = thread.owners[-1]
        thread.seen_pid = owner[0]
        stack_id = thread.stack_ids[-1]
        if stack_id is None:
            stack_id = self._stacks.child(None, NO_FRAMES, 0)
        before = thread.open.get(owner[0])
        if before is not None and before.round == thread.round:
            self._next_round(thread, owner[0])
        if before is not None and (before.stack_id, before.owner) == (stack_id, owner):
            before.round = thread.round  # as it was, before another process came between
            return
        if before is not None:
            self._emit(before, thread.look_us)
        thread.open[owner[0]] = _Open(stack_id, owner, thread.look_us, thread.round)

    def _next_round(self, thread: _Thread, seen_pid: int | None) -> None:
        """One process was seen again: those that were missed for long are gone."""
        if len(thread.open) == 1:
            return
        thread.round += 1
        for pid, other in list(thread.open.items()):
            if pid != seen_pid and thread.round - other.round > _MISSED_ROUNDS:
                assert thread.look_us is not None
                self._emit(thread.open.pop(pid), thread.look_us)

    def _emit(self, seen: _Open, end_us: float) -> None:
        """Write the interval of a stack, which ends now."""
        if end_us <= seen.since_us:
            return
        pid, tid, thread_name = seen.owner
        start_ns, end_ns = round(seen.since_us * 1000), round(end_us * 1000)
        if self._anchor_ns is None:
            self._rows.append((None, end_ns - start_ns, pid, tid, thread_name, seen.stack_id))
            return
        start_ns, end_ns = start_ns + self._anchor_ns, end_ns + self._anchor_ns
        death_ns = self._deaths.get(tid)
        # A thread that begins a stack after its death is another one with the same number.
        if death_ns is not None and start_ns < death_ns:
            end_ns = min(end_ns, death_ns)
        self._rows.append((start_ns, end_ns - start_ns, pid, tid, thread_name, seen.stack_id))


def parse_id(text: str) -> int | None:
    """Read a process or thread id of a root frame, decimal or 0x; null when it is absurd."""
    value = int(text, 0) if text[:2].lower() == "0x" else int(text[:20])
    return value if 0 <= value < _MAX_ID else None
