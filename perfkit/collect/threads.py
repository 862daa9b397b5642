"""Watches when the threads of a program run: reads their `schedstat` about 50 times a second.

py-spy says which stack a thread had, not whether it ran or slept, nor who held the interpreter's
lock; and it never closes the last stack of a thread that ended. All of it comes from here (format
and use: `perfkit.formats.threadlog`).
"""

from __future__ import annotations

import contextlib
import os
import resource
import threading
import time
from collections import Counter
from pathlib import Path

from perfkit.collect import processes
from perfkit.collect.gil import GilWatch
from perfkit.formats.threadlog import (
    DIED,
    GIL_HELD,
    GIL_WATCHED,
    POLLED,
    RUNS,
    SLEEPS,
    TICK,
    ThreadLogWriter,
)

_INTERVAL_S = 0.02
_TREE_INTERVAL_S = 0.5
_FLUSH_INTERVAL_S = 1.0
# Of a thread that ran for at least this share of the time it need not be asked whether it runs.
_RUNS_ON = 0.9
_STATES = {b"R": RUNS, b"S": SLEEPS, b"D": SLEEPS}
# A look takes about 5 µs a thread. Where that is more than this share of a core, we look less.
_COST_RATIO = 0.005


def watchable_threads(open_files: int) -> int:
    """Return how many threads can be watched when so many files may be open."""
    return max(64, open_files // 2)


class _Thread:
    """One watched thread: its open `schedstat` and what was last read and last written."""

    __slots__ = ("busy_ns", "fd", "pid", "read_ns", "state_fd", "waited_ns", "written_ns")

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self.fd = fd
        self.busy_ns = -1
        self.waited_ns = 0
        self.read_ns = 0
        self.written_ns = 0
        self.state_fd = -1
        """Its open `stat`, once it was needed."""

    def close(self) -> None:
        """Release its files."""
        os.close(self.fd)
        if self.state_fd >= 0:
            os.close(self.state_fd)


class ThreadWatcher:
    """Writes the log of a process and its Python descendants until it is stopped."""

    def __init__(self, root: int, *, gil: bool) -> None:
        """With `gil` also note who holds the interpreter's lock, where that can be seen."""
        self.root = root
        self.gil = GilWatch(enabled=gil)
        self.members: list[int] = [root]
        """The process and its descendants, as last seen."""
        self.python: list[int] = []
        """Those of them that look like Python."""
        self.stopped: set[int] = set()
        """Those that SIGSTOP or the terminal keeps stopped now: they do nothing at all."""
        self.stopped_ns: Counter[int] = Counter()
        """For how long each was seen so, to half a second."""
        self._last_tree_ns = 0
        self._watched: dict[int, dict[int, _Thread]] = {}
        self._log = ThreadLogWriter()
        self._asked: list[tuple[int, int, int, bool]] = []
        self._read_busy_ns: Counter[int] = Counter()
        """What was read of the threads of a process, altogether, the ended ones with them."""
        self._file: Path | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="thread watcher", daemon=True)
        self._limit = watchable_threads(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self.unwatched = 0
        """Most threads that could not be watched at once, for want of file descriptors."""
        self.ran_ns = 0
        """For how long the watched threads ran, altogether, since they are watched."""
        self.waited_ns = 0
        """For how long they could run but had no core."""

    @property
    def thread_count(self) -> int:
        """Number of threads of the watched processes."""
        return sum(len(threads) for threads in list(self._watched.values()))

    def start(self) -> None:
        """Begin to watch; what is seen is dropped until `switch` names a file."""
        self._refresh_tree()
        self._thread.start()

    def switch(self, file: Path | None) -> None:
        """End the current log and begin another, which is complete in itself; or none."""
        with self._lock:
            self._look()
            self._flush()
            self._file = file
            now = time.monotonic_ns()
            for pid, watched in self._watched.items():
                self._log.add(now, pid, POLLED)
                for tid, thread in watched.items():
                    self._log.add(thread.read_ns, tid, thread.busy_ns)
                    thread.written_ns = thread.read_ns
            for pid in self.gil.pids:
                self._log.add(now, pid, GIL_WATCHED)
            self._log_unread(now)

    def stop(self) -> None:
        """Take a last look, write the rest of the log and release all files."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        with self._lock:
            self._look()
            self._flush()
            for watched in self._watched.values():
                for thread in watched.values():
                    thread.close()
            self._watched = {}
            self.gil.close()

    def _run(self) -> None:
        next_tree = next_flush = time.monotonic()
        while not self._stop.is_set():
            began = time.monotonic()
            cost = time.thread_time()
            with self._lock:
                if began >= next_tree:
                    self._refresh_tree()
                    next_tree = began + _TREE_INTERVAL_S
                self._look()
                if began >= next_flush:
                    # A full disk ends the recording elsewhere; the log stays in memory until then.
                    with contextlib.suppress(OSError):
                        self._flush()
                    next_flush = began + _FLUSH_INTERVAL_S
            pause = max(_INTERVAL_S, (time.thread_time() - cost) / _COST_RATIO)
            self._stop.wait(max(0.001, began + pause - time.monotonic()))

    def _refresh_tree(self) -> None:
        self.members = processes.tree(self.root)
        self.python = [pid for pid in self.members if processes.is_python(pid)]
        now = time.monotonic_ns()
        self._see_stopped(now)
        for pid in self.python:
            if pid not in self._watched:
                self._watched[pid] = {}
                for tid in processes.threads(pid):
                    self._begin(pid, tid, now, since_ns=None)
                self._log.add(now, pid, POLLED)
            if self.gil.find(pid):
                self._log.add(now, pid, GIL_WATCHED)

    def _see_stopped(self, now: int) -> None:
        # What py-spy pauses is traced, which is another state.
        stopped = {pid for pid in {self.root, *self.python} if processes.state(pid) == "T"}
        for pid in stopped & self.stopped:
            self.stopped_ns[pid] += now - self._last_tree_ns
        self.stopped, self._last_tree_ns = stopped, now

    def _look(self) -> None:
        now = time.monotonic_ns()
        for pid in list(self._watched):
            watched = self._watched[pid]
            present = processes.threads(pid)
            for tid in present:
                thread = watched.get(tid)
                if thread is None:
                    self._begin(pid, tid, now, since_ns=self._last_look_ns)
                elif not self._read(tid, thread, now):
                    self._end(watched, tid, now)
            if len(watched) > len(present) or not present:
                for tid in watched.keys() - set(present):
                    self._end(watched, tid, now)
            holder = self.gil.holder(pid, present)
            self._log_asked(holder)
            if holder is not None:
                self._log.add(now, holder, GIL_HELD)
            if not present:
                del self._watched[pid]
                del self._read_busy_ns[pid]
        self._log.add(now, 0, TICK)
        self._last_look_ns = now

    _last_look_ns = 0

    def _begin(self, pid: int, tid: int, now: int, *, since_ns: int | None) -> None:
        if self.thread_count >= self._limit:
            self.unwatched += 1
            return
        try:
            fd = os.open(f"/proc/{tid}/schedstat", os.O_RDONLY)
        except OSError:  # gone again, or a kernel without it: then the state stays unknown
            return
        thread = _Thread(pid, fd)
        if since_ns is not None:
            # It began after the last look, with no time used.
            self._log.add(since_ns, tid, 0)
            thread.busy_ns = 0
        if self._read(tid, thread, now):
            self._watched[pid][tid] = thread
        else:
            thread.close()

    def _read(self, tid: int, thread: _Thread, now: int) -> bool:
        try:
            ran, waited, _ = os.pread(thread.fd, 80, 0).split(None, 2)
            busy_ns, waited_ns = int(ran), int(waited)
        except (OSError, ValueError):  # the thread is gone
            return False
        # The log has the time it ran alone: on a machine with too few cores every thread that wakes
        # up to wait again would seem to run, if the time it waited for a core were counted too.
        if busy_ns != thread.busy_ns:
            if thread.written_ns != thread.read_ns:
                self._log.add(thread.read_ns, tid, thread.busy_ns)  # the end of the pause
            self._log.add(now, tid, busy_ns)
            self._read_busy_ns[thread.pid] += busy_ns - max(0, thread.busy_ns)
            if thread.busy_ns >= 0:
                ran_ns, waiting_ns = busy_ns - thread.busy_ns, waited_ns - thread.waited_ns
                if ran_ns < _RUNS_ON * (now - thread.read_ns):
                    self._ask(tid, thread, has_core=waiting_ns <= ran_ns)
                self.ran_ns += ran_ns
                self.waited_ns += waiting_ns
            thread.busy_ns = busy_ns
            thread.waited_ns = waited_ns
            thread.written_ns = now
        thread.read_ns = now
        return True

    def _ask(self, tid: int, thread: _Thread, *, has_core: bool) -> None:
        """See whether a thread runs now: only at this very moment is its stack known as well."""
        try:
            if thread.state_fd < 0:
                if 2 * self.thread_count > self._limit:
                    return
                thread.state_fd = os.open(f"/proc/{tid}/stat", os.O_RDONLY)
            text = os.pread(thread.state_fd, 80, 0)
        except OSError:  # the thread is gone
            return
        # The name stands in parentheses and may contain anything, spaces and parentheses too.
        place = text.rindex(b")") + 2
        state = _STATES.get(text[place : place + 1])
        if state is not None:  # otherwise it is paused
            self._asked.append((time.monotonic_ns(), tid, state, has_core))

    def _log_asked(self, holder: int | None) -> None:
        """Log what was seen of threads; `holder` has the interpreter's lock."""
        for moment, tid, state, has_core in self._asked:
            # What woke up and waits for a core runs for the kernel, but not in its code.
            if state == SLEEPS or has_core or tid == holder:
                self._log.add(moment, tid, state)
        self._asked.clear()

    def _end(self, watched: dict[int, _Thread], tid: int, now: int) -> None:
        thread = watched.pop(tid)
        if thread.written_ns != thread.read_ns:
            self._log.add(thread.read_ns, tid, thread.busy_ns)
        self._log.add(now, tid, DIED)
        thread.close()

    def _log_unread(self, now: int) -> None:
        for pid in self._watched:
            cpu_ns = processes.cpu_ns(pid)
            if cpu_ns is not None:
                self._log.add(now, -pid, max(0, cpu_ns - self._read_busy_ns[pid]))

    def _flush(self) -> None:
        self._log_unread(time.monotonic_ns())
        for watched in self._watched.values():
            for tid, thread in watched.items():
                if thread.written_ns != thread.read_ns:
                    # Says that the thread is still idle: the log may end here.
                    self._log.add(thread.read_ns, tid, thread.busy_ns)
                    thread.written_ns = thread.read_ns
        data = self._log.take()
        if self._file is None:
            return
        with self._file.open("ab") as file:
            file.write(data)
