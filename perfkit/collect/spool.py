"""Takes bodies into the journal from many threads, and returns when they are on disk.

Syncs are shared: while one is under way, others append, and the next one covers them all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
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
        lock = threading.RLock()
        # Apart, so that a record that comes in does not wake all who wait for theirs.
        self._todo = threading.Condition(lock)
        self._done = threading.Condition(lock)
        self._appended = 0
        self._synced = 0
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
        parts = entry(record)  # before the lock: others would wait for the sum of its bytes
        with self._done:
            self._check()
            if not urgent:
                self._check_load()
            try:
                self._journal.append_entry(parts)
            except OSError as error:
                self._fail(error)
                raise SpoolFailed(error) from error
            self._appended += 1
            self._unsynced_bytes += len(record.body)
            ticket = self._appended
            self._todo.notify()
            while self._synced < ticket:
                self._check()
                self._done.wait()

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
            self._fail(error)
        if empty:
            last.unlink()
        else:
            self._on_segment(last)

    def _check(self) -> None:
        if self._failure is not None:
            raise SpoolFailed(self._failure)
        if self._closing and self._synced == self._appended:
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
        self._done.notify_all()

    def _run(self) -> None:
        while True:
            with self._todo:
                while self._synced == self._appended and not self._closing and not self._due():
                    self._todo.wait(1.0)
                if self._failure is not None or (self._closing and self._synced == self._appended):
                    return
                target, covered = self._appended, self._unsynced_bytes
                rotated = self._rotate() if self._due() else None
            # Outside the lock: others append while the disk works.
            if rotated is not None:
                self._on_segment(rotated)
            else:
                try:
                    self._journal.sync()
                except OSError as error:
                    with self._done:
                        self._fail(error)
                    return
            with self._done:
                if self._failure is None:
                    self._synced = target
                    self._unsynced_bytes -= covered
                self._done.notify_all()

    def _due(self) -> bool:
        old = time.monotonic() - self._segment_began > _SEGMENT_AGE_S
        return self._journal.full or (old and self._journal.current_bytes > 0)

    def _rotate(self) -> Path | None:
        try:
            full = self._journal.rotate()
        except OSError as error:
            self._fail(error)
            return None
        self._segment_began = time.monotonic()
        return full
