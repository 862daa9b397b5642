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


class Compactor:
    """Client of the worker process. Segments that it does not get to stay in the journal."""

    def __init__(self, capture: Path, writer_id: str, keep_open: Sequence[int]) -> None:
        """Start the worker. `keep_open` are file descriptors that it inherits."""
        self.rows: dict[str, int] = {}
        self.rejected: dict[str, int] = {}
        self.errors: list[str] = []
        self._pending: dict[str, int] = {}
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "perfkit.collect.compactor", str(capture), writer_id],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=keep_open,
            start_new_session=True,  # ^C on the terminal is for the recorder alone
            text=True,
            # One thread: the cores belong to the program that is being recorded.
            env={**os.environ, "POLARS_MAX_THREADS": "1"},
        )
        self._reader = threading.Thread(target=self._read, name="compaction", daemon=True)
        self._reader.start()

    def submit(self, segment: Path) -> None:
        """Have a segment compacted; returns at once."""
        try:
            length = segment.stat().st_size
        except OSError:
            length = 0
        with self._lock:
            self._pending[str(segment)] = length
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(json.dumps(str(segment)) + "\n")
                self._process.stdin.flush()
            except OSError:
                self.errors.append("the compaction worker ended unexpectedly")

    def backlog_bytes(self) -> int:
        """Return the size of what waits to be compacted."""
        with self._lock:
            return sum(self._pending.values())

    def close(self) -> None:
        """Wait until everything is compacted and end the worker."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:
            self.errors.append("the compaction worker ended unexpectedly")
        self._process.wait()
        self._reader.join()

    def abandon(self) -> None:
        """End the worker at once; the journal keeps what it has not finished."""
        self._process.kill()
        self.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            result = json.loads(line)
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
