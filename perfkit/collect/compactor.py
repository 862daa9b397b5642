"""Compacts journal segments into Parquet parts while recording, in a process of its own.

The recorder must stay cheap and prompt; decoding is neither, and holds the GIL. The worker ends
when its standard input closes, so it never outlives the recorder by more than one segment.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any


class Compactor:
    """Client of the worker process. Segments that it does not get to stay in the journal.

    The worker starts with the first segment: loading Polars takes a second of CPU, which a short
    recording spends after its end instead of beside the program that it watches.
    """

    def __init__(self, capture: Path, writer_id: str, keep_open: Sequence[int]) -> None:
        """`keep_open` are file descriptors that the worker inherits."""
        self.rows: dict[str, int] = {}
        self.rejected: dict[str, int] = {}
        self.errors: list[str] = []
        self._arguments = (str(capture), writer_id)
        self._keep_open = tuple(keep_open)
        self._pending: dict[str, int] = {}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def submit(self, segment: Path) -> None:
        """Have a segment compacted; returns at once."""
        try:
            length = segment.stat().st_size
        except OSError:
            length = 0
        with self._lock:
            self._pending[str(segment)] = length
            try:
                pipe = self._worker().stdin
                assert pipe is not None
                pipe.write(json.dumps(str(segment)) + "\n")
                pipe.flush()
            except OSError:
                self.errors.append("the compaction worker ended unexpectedly")

    def _worker(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "perfkit.collect.compactor", *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=self._keep_open,
                start_new_session=True,  # ^C on the terminal is for the recorder alone
                text=True,
                # One thread: the cores belong to the program that is being recorded.
                env={**os.environ, "POLARS_MAX_THREADS": "1"},
            )
            self._reader = threading.Thread(
                target=self._read, args=(self._process,), name="compaction", daemon=True
            )
            self._reader.start()
        return self._process

    def backlog_bytes(self) -> int:
        """Return the size of what waits to be compacted."""
        with self._lock:
            return sum(self._pending.values())

    def close(self) -> None:
        """Wait until everything is compacted and end the worker."""
        if self._process is None or self._reader is None:
            return
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:
            self.errors.append("the compaction worker ended unexpectedly")
        self._process.wait()
        self._reader.join()
        if self._pending and not self.errors:
            self.errors.append("the compaction worker ended unexpectedly")

    def abandon(self) -> None:
        """End the worker at once; the journal keeps what it has not finished."""
        if self._process is not None:
            self._process.kill()
        self.close()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as answers:
            for line in answers:
                self._take(json.loads(line))

    def _take(self, result: dict[str, Any]) -> None:
        with self._lock:
            self._pending.pop(result["segment"], None)
            for total, part in ((self.rows, "rows"), (self.rejected, "rejected")):
                for name, count in result[part].items():
                    total[name] = total.get(name, 0) + count
            if result["error"]:
                self.errors.append(result["error"])


def main(argv: list[str]) -> int:
    """Compact the segments whose paths come as JSON strings on standard input, one a line."""
    from perfkit.compact import SegmentCompactor

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(5)
    segments = SegmentCompactor(Path(argv[0]), argv[1])
    for line in sys.stdin:
        segment = json.loads(line)
        answer = {"segment": segment, "rows": {}, "rejected": {}, "error": ""}
        try:
            answer |= asdict(segments.compact(Path(segment)))
        except OSError as failure:  # most likely a full disk: the journal keeps the segment
            answer["error"] = failure.strerror or str(failure)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
