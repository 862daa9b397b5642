"""The capture that a recording writes: journal, compaction worker and `capture.json` together."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

from perfkit.collect.compactor import Compactor
from perfkit.collect.spool import Overloaded, Spool, SpoolFailed
from perfkit.journal import JOURNAL_DIR, RESERVE_NAME, Kind, Record
from perfkit.manifest import INFO_NAME, create

_MIN_FREE_BYTES = 64 << 20
_RESERVE_BYTES = 1 << 20
_MAX_BACKLOG_BYTES = 2 << 30
_SPACE_CHECK_S = 1.0


class Store:
    """Everything that a recording writes goes through here."""

    def __init__(self, path: Path, sampling: dict[str, Any] | None = None) -> None:
        """Create the capture. Raises CaptureError when there is something at `path`.

        `sampling` is what `CaptureInfo.sampling` says.
        """
        self.path = path
        self._existed = path.exists()
        self.info, self._lock = create(path)
        self.info.sampling = sampling or {}
        # The compaction worker reads it there, and so does who finishes a capture after a crash.
        self.save_info()
        self.journal = path / JOURNAL_DIR
        self._space_asked_s = 0.0
        self._low_space = False
        self.compactor = Compactor(path, [self.lock_fd])
        self.spool = Spool(
            self.journal,
            on_segment=self.compactor.submit,
            overload=self._overload,
        )
        # Space held back, so that a full disk does not keep us from ending in order.
        self._reserve = self.journal / RESERVE_NAME
        with self._reserve.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, _RESERVE_BYTES)

    @property
    def lock_fd(self) -> int:
        """The capture's lock, for helper processes to inherit."""
        return self._lock.fd

    def put_metrics(self, body: bytes) -> bool:
        """Make rows of the table `metrics`, as JSON columns, durable; false once that fails."""
        try:
            self.spool.put(Record(Kind.METRICS_ROWS, False, body), urgent=True)
        except (Overloaded, SpoolFailed):
            return False
        return True

    def _overload(self) -> str | None:
        """Say why OTLP should come later; asked for each body, so it is cheap."""
        if self.compactor.backlog_bytes() > _MAX_BACKLOG_BYTES:
            return "the compaction cannot follow"
        now = time.monotonic()
        if now - self._space_asked_s > _SPACE_CHECK_S:
            self._space_asked_s = now
            self._low_space = shutil.disk_usage(self.path).free < _MIN_FREE_BYTES
        return "the disk is nearly full" if self._low_space else None

    def size_bytes(self) -> int:
        """Return the size of what was written: parts, and the journal that waits."""
        waiting = 0
        # The worker removes files meanwhile.
        with contextlib.suppress(OSError), os.scandir(self.journal) as entries:
            waiting = sum(e.stat().st_size for e in entries if e.name != RESERVE_NAME)
        return self.compactor.size_bytes + waiting

    def save_info(self) -> None:
        """Write `capture.json`."""
        self.info.save(self.path / INFO_NAME)

    def problem(self) -> str | None:
        """Say why nothing more can be written, if so."""
        if self.spool.failure is not None:
            return self.spool.failure.strerror or str(self.spool.failure)
        free = shutil.disk_usage(self.path).free
        return "No space left on device" if free < _MIN_FREE_BYTES else None

    def close(self) -> None:
        """Compact what is left and finish the capture.

        What cannot be compacted, for want of space, stays in the journal: opening the capture does
        it then, or reads it as it is.
        """
        self.spool.close()
        self._reserve.unlink(missing_ok=True)
        self.compactor.close()
        for table, count in self.compactor.rows.items():
            self.info.rows[table] = self.info.rows.get(table, 0) + count
        self.info.lose_rejected(self.compactor.rejected)
        self._describe_losses()
        for error in dict.fromkeys(self.compactor.errors):
            self.info.note(f"The journal was not compacted to its end: {error}.")
        self.info.finished_ns = time.time_ns()
        self.save_info()
        self._lock.release()
        if not any(self.journal.iterdir()):
            self.journal.rmdir()

    def _describe_losses(self) -> None:
        compactor = self.compactor
        if compactor.sampled_out:
            self.info.note(
                f"Tail sampling kept every trace that failed or was slow, and a share of the "
                f"others: {compactor.sampled_out} spans were left out, and those that were kept "
                "stand for them."
            )
        if any(compactor.forgotten.values()):
            rows = ", ".join(f"{count} {table}" for table, count in compactor.forgotten.items())
            self.info.note(f"A ring: what was older was removed again ({rows}).")

    def discard(self) -> None:
        """Take the capture back, after a recording that could not begin."""
        self.spool.close()
        self.compactor.abandon()
        self._lock.release()
        if not self._existed:
            shutil.rmtree(self.path, ignore_errors=True)
