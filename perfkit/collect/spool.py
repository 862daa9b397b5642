"""Takes bodies into the journal from many threads, and tells when they are on disk.

Syncs are shared: while one is under way, others append, and the next one covers them all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from perfkit.journal import Journal, Record, entry

_MAX_UNSYNCED_BYTES = 64 << 20
_SEGMENT_AGE_S = 30.0


class Overloaded(Exception):
    """The disk, or the compaction, cannot follow: come back a little later."""


class SpoolFailed(Exception):
    """The journal cannot be written any more; `error` says why (most likely: disk full)."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror or str(error))
        self.error = error


Written = Callable[[SpoolFailed | None], None]


class Spool:
    """A journal for many threads. `on_segment` is called with each segment that is complete."""

    def __init__(
        self,
        directory: Path,
        *,
        on_segment: Callable[[Path], None],
        overload: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`overload` says why nothing more should come for now, if so."""
        self._journal = Journal(directory)
        self._on_segment = on_segment
        self._overload = overload
        self._todo = threading.Condition()
        self._waiting: list[Written] = []
        """Who wants to hear of records that the next sync covers."""
        self._unsynced_bytes = 0
        self._segment_began = time.monotonic()
        self._closing = False
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="journal sync", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> OSError | None:
        """The error that ended the journal, if one did."""
        return self._failure

    def put(self, record: Record, *, urgent: bool = False) -> None:
        """Append a record and wait until it is durable.

        Raises Overloaded, unless `urgent`, and SpoolFailed.
        """
        outcome: Future[SpoolFailed | None] = Future()
        self.submit(record, outcome.set_result, urgent=urgent)
        self.flush()
        error = outcome.result()
        if error is not None:
            raise error

    def submit(self, record: Record, written: Written, *, urgent: bool = False) -> None:
        """Append a record; `written` is called, from another thread, when it is durable or lost.

        Raises Overloaded, unless `urgent`, and SpoolFailed; then it is not called.
        """
        parts = entry(record)  # before the lock: others would wait for the sum of its bytes
        with self._todo:
            self._check()
            if not urgent:
                self._check_load()
            try:
                self._journal.append_entry(parts)
            except OSError as error:
                self._fail(error)
                raise SpoolFailed(error) from error
            self._waiting.append(written)
            self._unsynced_bytes += len(record.body)

    def flush(self) -> None:
        """Begin to make durable what was submitted."""
        with self._todo:
            self._todo.notify()

    def close(self) -> None:
        """Sync, refuse everything from now on, and hand over the last segment."""
        with self._todo:
            self._closing = True
            self._todo.notify()
        self._thread.join()
        last = self._journal.current
        empty = not self._journal.current_bytes
        try:
            self._journal.close()
        except OSError as error:
            with self._todo:
                self._fail(error)
        if empty:
            last.unlink()
        else:
            self._on_segment(last)

    def _check(self) -> None:
        if self._failure is not None:
            raise SpoolFailed(self._failure)
        if self._closing:
            raise Overloaded("the recording has ended")

    def _check_load(self) -> None:
        if self._unsynced_bytes > _MAX_UNSYNCED_BYTES:
            raise Overloaded("the disk cannot follow")
        reason = self._overload()
        if reason is not None:
            raise Overloaded(reason)

    def _fail(self, error: OSError) -> None:
        self._failure = self._failure or error
        self._todo.notify()

    def _run(self) -> None:
        try:
            while self._wait():
                self._sync()
        finally:  # whatever has happened, nobody must wait for ever
            with self._todo:
                lost, self._waiting = self._waiting, []
                if lost or not self._closing:
                    self._fail(OSError("the journal's thread has ended"))
            self._tell(lost, self._failure)

    def _wait(self) -> bool:
        """Wait until there is something to do; returns whether there will ever be."""
        with self._todo:
            while not (self._waiting or self._closing or self._failure or self._due()):
                self._todo.wait(1.0)
            return self._failure is None and (bool(self._waiting) or not self._closing)

    def _sync(self) -> None:
        """Make durable what was appended, and begin a new segment if it is time."""
        with self._todo:
            covered, self._waiting = self._waiting, []
            covered_bytes = self._unsynced_bytes
        complete: Path | None = None
        failure: OSError | None = None
        try:
            # Without the lock, so that others append while the disk works.
            if self._due():
                self._journal.open_next()
                with self._todo:
                    full = self._journal.switch()
                complete = full.finish()
                self._segment_began = time.monotonic()
            else:
                self._journal.sync()
        except OSError as error:
            failure = error
        with self._todo:
            self._unsynced_bytes -= covered_bytes
            if failure is not None:
                self._fail(failure)
        self._tell(covered, failure)
        if complete is not None:
            self._on_segment(complete)

    def _tell(self, waiting: list[Written], error: OSError | None) -> None:
        for written in waiting:
            written(None if error is None else SpoolFailed(error))

    def _due(self) -> bool:
        old = time.monotonic() - self._segment_began > _SEGMENT_AGE_S
        return self._journal.full or (old and self._journal.current_bytes > 0)
