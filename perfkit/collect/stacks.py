"""Records stacks for as long as it takes: one py-spy after the other, in segments.

py-spy keeps all it has in memory and writes it at its end, so a crash loses what it had. Segments
bound that loss. Where the program is not paused, the next py-spy begins before the last one ends,
so that nothing is missed; both traces are cut at one instant.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from perfkit.collect import access, processes
from perfkit.collect.overhead import Governor
from perfkit.collect.sampling import Settings, Wishes, choose
from perfkit.collect.segment import NotYet, Segment, begin
from perfkit.collect.threads import ThreadWatcher
from perfkit.errors import RecordError
from perfkit.journal import StackSegment, divided
from perfkit.units import percent

SEGMENT_S = 30.0
_ATTACH_RETRY_S = 1.0
_MIN_SEGMENT_S = 4.0
_CHILDREN_AGE_S = 1.0
_POLL_S = 0.05
# Each time costs some 80 µs of CPU, and nothing here is more urgent; a stop does not wait for it.
_WATCH_S = 0.25
_LOOK_S = 0.5
_MAX_LAG_NS = 10**9
# py-spy keeps its events in memory and copies them to write: of deep stacks in many processes these
# are hundreds of bytes for each frame of each look.
_MAX_EVENTS_BYTES = 150 << 20


class StackRecorder:
    """Records the stacks of a process, and of the Python processes below it."""

    def __init__(
        self,
        root: int,
        directory: Path,
        watcher: ThreadWatcher,
        *,
        command: Sequence[str],
        wishes: Wishes,
        segment_s: float,
        keep_open: Sequence[int],
        on_segment: Callable[[Path], None],
    ) -> None:
        self.root = root
        self._directory = directory
        self.watcher = watcher
        self.command = command
        """How the process was started; known here because it may be gone at the end."""
        self.wishes = wishes
        self._segment_s = segment_s
        self._keep_open = list(keep_open)
        self._on_segment = on_segment
        self._number = 1
        self._has_children = bool(wishes.subprocesses)
        self.governor = Governor(
            wishes.max_overhead_ratio, root, lambda: (watcher.ran_ns, watcher.waited_ns)
        )
        self._current: Segment | None = None
        self._stop = threading.Event()
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stacks", daemon=True)
        self.segments = 0
        self.samples = 0
        self.errors = 0
        self._past_lag_ns = 0
        self.first_ns: int | None = None
        self.settings: list[dict[str, Any]] = []
        """The settings used, each with the time since when and the number of threads then."""
        self.lost: list[tuple[str, int, str]] = []
        """What was lost: (what, how much, why)."""
        self.continued: set[int] = set()
        """Processes that were stopped when a py-spy ended that paused them."""
        self.problem: str | None = None
        """Why no stacks are being recorded any more, for the user."""

    @property
    def active(self) -> Settings | None:
        """The settings of the py-spy that is sampling now."""
        current = self._current
        return current.spy.settings if current else None

    @property
    def lag_ns(self) -> int:
        """How far py-spy was behind its plan at worst."""
        current = self._current
        return max(self._past_lag_ns, current.spy.lag_ns if current else 0)

    def attach(self) -> None:
        """Attach to a running process. Raises RecordError, at once, when that is impossible."""
        deadline = time.monotonic() + _ATTACH_RETRY_S
        while True:
            try:
                self._current = self._begin()
                return
            except NotYet as failure:
                hopeful = access.is_python_tree(self.root) and access.may_attach(self.root)
                if not hopeful or time.monotonic() > deadline:
                    raise access.explain(self.root, failure.output) from None
            time.sleep(_POLL_S)

    def start(self) -> None:
        """Record in the background; without `attach` before, as soon as there is a Python."""
        self._thread.start()

    def request_stop(self) -> None:
        """End, and keep everything; `wait` says when that is done."""
        self._stop.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait until the recording of stacks has ended; false when it has not yet."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def abandon(self) -> None:
        """End at once; the segment under way is lost."""
        self._abandoned.set()  # first of all: what is stopped from now on, py-spy may have left
        self._stop.set()
        current = self._current
        if current is not None:
            current.spy.kill()

    def _run(self) -> None:
        segment = self._current or self._attach_when_possible()
        while segment is not None:
            self._current = segment
            self.governor.begin(segment.spy.pid, blocking=segment.spy.settings.blocking)
            segment = self._follow(segment)
        self._current = None

    def _follow(self, segment: Segment) -> Segment | None:
        """Watch a segment to its end; returns the one that follows it, if any."""
        began = time.monotonic()
        next_look = began + _LOOK_S
        while not self._stop.wait(_WATCH_S):
            age_s = time.monotonic() - began
            self._see_stopped(segment)
            if not segment.spy.running:
                self._end(segment)
                return self._attach_when_possible()
            costly = self.governor.over_budget(segment.spy.settings.rate)
            if self.governor.exhausted:
                self.problem = (
                    "no stacks any more: even one look a second costs the program more than "
                    f"{percent(self.wishes.max_overhead_ratio)} of its speed (--max-overhead)"
                )
                break
            if costly or age_s > self._segment_s:
                return self._replace(segment)
            if began + age_s >= next_look:
                if self._outdated(segment, age_s):
                    return self._replace(segment)
                next_look = began + age_s + _LOOK_S
        self._end(segment)
        return None

    def _outdated(self, segment: Segment, age_s: float) -> bool:
        """Whether the program has changed so much that other settings are needed now."""
        settings = segment.spy.settings
        if age_s > _CHILDREN_AGE_S and not settings.subprocesses and self._follows_children():
            return True
        if age_s < _MIN_SEGMENT_S:
            return False
        if processes.resident_bytes(segment.spy.pid) - segment.start_bytes > _MAX_EVENTS_BYTES:
            return True
        if self.wishes.rate is None and segment.spy.lag_ns > _MAX_LAG_NS and settings.rate > 1:
            self.governor.lagged(settings.rate)
        return self._choose().rate * 1.5 < settings.rate

    def _follows_children(self) -> bool:
        # Once there were any, there will be others: a program that starts short-lived ones.
        if self.wishes.subprocesses is None:
            self._has_children |= bool(set(self.watcher.python) - {self.root})
        return self._has_children

    def _choose(self) -> Settings:
        # The Python that is to be recorded may come as a child of a shell, say.
        subprocesses = self._follows_children() or not self.watcher.python
        return choose(
            threads=sum(len(processes.threads(pid)) for pid in self._wanted()),
            cores=len(os.sched_getaffinity(0)),
            subprocesses=subprocesses and self.wishes.subprocesses is not False,
            wishes=self.wishes,
            limit=self.governor.limit,
        )

    def _wanted(self) -> list[int]:
        """Return the processes whose stacks are wanted."""
        return [self.root] if self.wishes.subprocesses is False else self.watcher.python

    def _begin(self, *, overlap: bool = False) -> Segment:
        """Start a py-spy and wait until it samples. Raises NotYet when it ends instead.

        With `overlap` the thread watcher goes on with the log of the present segment.
        """
        settings = self._choose()
        files = StackSegment.numbered(self._directory, self._number)
        if not overlap:
            self.watcher.switch(files.threads)
        try:
            segment = begin(
                self.root,
                settings,
                files,
                idle=self.wishes.idle,
                members=self.watcher.members,
                keep_open=self._keep_open,
                abandoned=self._abandoned,
            )
        except BaseException:
            if not overlap:
                self.watcher.switch(None)
            files.remove()
            raise
        self._number += 1
        if self.first_ns is None:
            self.first_ns = time.time_ns()
        self._remember(settings)
        self._warn_of_refused_processes()
        return segment

    def _remember(self, settings: Settings) -> None:
        chosen = asdict(settings) | {"reasons": list(settings.reasons)}
        if self.settings and chosen.items() <= self.settings[-1].items():
            return
        counts = {
            "threads": self.watcher.thread_count,
            "processes": len(self._wanted()),
        }
        self.settings.append({"since_ns": time.time_ns(), **counts, **chosen})

    def _warn_of_refused_processes(self) -> None:
        """Say that some processes are not seen: under Yama those that the command forks itself."""
        python = self._wanted()
        refused = [pid for pid in python if processes.exists(pid) and not access.may_attach(pid)]
        if refused:
            error = access.no_permission(refused[0])
            count = f"{len(refused)} of {len(python)}"
            self.problem = f"no stacks of {count} processes: {error.message}; {error.hint}"

    def _attach_when_possible(self) -> Segment | None:
        """Attach to a program that starts, or after py-spy ended; null when there is no use."""
        pause_s = _POLL_S
        while not self._stop.is_set() and processes.exists(self.root):
            if self.watcher.python:
                try:
                    return self._begin()
                except NotYet as failure:
                    if self._hopeless(failure):
                        return None
                except (RecordError, OSError) as error:
                    self.problem = str(error)
                    return None
            self._stop.wait(pause_s)
            pause_s = min(pause_s * 1.5, 1.0)
        return None

    def _hopeless(self, failure: NotYet) -> bool:
        """Whether trying again cannot help, because the kernel does not let us."""
        members = self.watcher.python
        refused = [pid for pid in members if processes.exists(pid) and not access.may_attach(pid)]
        if not refused or len(refused) < len(members):
            return False
        error = access.explain(refused[0], failure.output)
        self.problem = f"no stacks: {error.message}; {error.hint}"
        return True

    def _replace(self, segment: Segment) -> Segment | None:
        """Begin the next segment and end this one, without a gap where that is possible."""
        self.governor.end()
        if segment.spy.settings.blocking:
            # Two of them that pause the program would get into each other's way.
            ended = time.monotonic_ns()
            self._end(segment)
            following = self._attach_when_possible()
            if following is not None:
                gap_ms = (following.spy.began.monotonic_ns - ended) // 1_000_000
                self.lost.append(("stacks, ms", gap_ms, "between two runs of a blocking py-spy"))
            return following
        try:
            following = self._begin(overlap=True)
        except (NotYet, RecordError, OSError):
            return segment  # goes on, and another time we try again
        # By then the next one has taken a few samples of every thread.
        time.sleep(3 / following.spy.settings.rate)
        cut_ns = time.monotonic_ns()
        self.watcher.switch(following.files.threads)
        segment.spy.interrupt()
        until, since = divided(segment.meta, following.meta, cut_ns)
        segment.amend(until)
        following.amend(since)
        self._finish(segment)
        return following

    def _end(self, segment: Segment) -> None:
        """End a segment that no other one follows at once."""
        self.governor.end()
        self._see_stopped(segment)
        segment.spy.interrupt()
        with contextlib.suppress(OSError):  # a full disk ends the recording elsewhere
            self.watcher.switch(None)
        self._finish(segment)

    def _see_stopped(self, segment: Segment) -> None:
        """Note which processes somebody else stopped: a py-spy that pauses them still works."""
        if segment.spy.settings.blocking:
            segment.guard.see(
                self.watcher.members,
                lambda: segment.spy.running and not self._abandoned.is_set(),
            )

    def _finish(self, segment: Segment) -> None:
        """Wait for what py-spy writes, and hand it over."""
        spy = segment.spy
        written = spy.finish()
        if spy.settings.blocking:
            self.continued.update(segment.guard.release(self.watcher.members))
        self.segments += 1
        self.samples += spy.samples
        self.errors += spy.errors
        self._past_lag_ns = max(self._past_lag_ns, spy.lag_ns)
        if written:
            segment.amend(replace(segment.meta, stopped_monotonic_ns=spy.stopped_ns))
            self._on_segment(segment.files.trace)
            return
        why = "abandoned" if self._abandoned.is_set() else "py-spy ended without writing"
        self.lost.append(("segments of stacks", 1, f"{why} {spy.output_text()[:200]}".strip()))
        segment.files.remove()
