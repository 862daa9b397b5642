"""Compacts journal segments into Parquet parts while recording, in a process of its own.

The recorder must stay cheap and prompt; decoding is neither, and holds the GIL. The worker ends
when its standard input closes, so it never outlives the recorder by more than one segment.
"""

from __future__ import annotations

import itertools
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

from perfkit.collect.ring import Bounds

WORKER_ENVIRONMENT = {
    # One thread: the cores belong to the program that is being recorded.
    "POLARS_MAX_THREADS": "1",
    # The C library keeps what it was given back, for the next of many equal pieces: it took a
    # tenth of the time to have it from the system anew. Other C libraries than GNU's ignore it.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    "MALLOC_TOP_PAD_": str(16 << 20),
}


class Compactor:
    """Client of the worker process. Segments that it does not get to stay in the journal.

    The worker starts with the first segment: loading Polars takes a second of CPU, which a short
    recording spends after its end instead of beside the program that it watches.
    """

    def __init__(self, capture: Path, keep_open: Sequence[int]) -> None:
        """`keep_open` are file descriptors that the worker inherits."""
        self.rows: dict[str, int] = {}
        self.rejected: dict[str, int] = {}
        self.errors: list[str] = []
        self.size_bytes = 0
        """Size of the parts that were written and not forgotten."""
        self.sampled_out = 0
        self.forgotten: dict[str, int] = {}
        """Rows of parts that were removed again, by table."""
        self._capture = capture
        self._keep_open = tuple(keep_open)
        self._pending: dict[str, int] = {}
        self._untold: list[str] = []
        """Segments of which the worker was not told yet, because it could not be started."""
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
            self._untold.append(str(segment))
            self._tell_of_segments()

    def forget(self, bounds: Bounds) -> None:
        """Have the oldest parts removed until the capture is within bounds; returns at once."""
        with self._lock:
            if self._process is not None:
                self._tell(self._process, asdict(bounds))

    def _tell_of_segments(self) -> str | None:
        """Tell the worker of new segments; returns why not, to be tried again."""
        try:
            process = self._worker()
        except OSError as error:
            return error.strerror or str(error)
        for segment in self._untold:
            self._tell(process, segment)
        self._untold.clear()
        return None

    def _tell(self, process: subprocess.Popen[str], message: str | dict[str, Any]) -> None:
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
        except OSError:
            self.errors.append("the compaction worker ended unexpectedly")

    def _worker(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "perfkit.collect.compactor", str(self._capture)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=self._keep_open,
                start_new_session=True,  # ^C on the terminal is for the recorder alone
                text=True,
                env={**os.environ, **WORKER_ENVIRONMENT},
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
        if self._untold and (why := self._tell_of_segments()) is not None:
            self.errors.append(f"the compaction worker cannot be started: {why}")
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
            self._pending.pop(result.get("segment", ""), None)
            for total, part in (
                (self.rows, "rows"),
                (self.rejected, "rejected"),
                (self.forgotten, "forgotten"),
            ):
                for name, count in result.get(part, {}).items():
                    total[name] = total.get(name, 0) + count
            self.size_bytes += result.get("size_bytes", 0)
            self.sampled_out += result.get("sampled_out", 0)
            if result.get("error"):
                self.errors.append(result["error"])


def main(argv: list[str]) -> int:
    """Do what comes as JSON on standard input, one message a line.

    A string is the path of a segment to compact; an object is `Bounds` to keep.
    """
    from perfkit.collect.ring import forget
    from perfkit.compact import SegmentCompactor
    from perfkit.errors import CaptureError
    from perfkit.manifest import INFO_NAME, CaptureInfo

    # What is said to all processes of a service at once is for the recorder, with whom this ends.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(5)
    capture = Path(argv[0])
    try:
        segments = SegmentCompactor(capture, CaptureInfo.load(capture / INFO_NAME))
    except CaptureError as failure:  # somebody took the capture away
        sys.stderr.write(f"perfkit: error: {failure.message}\n")
        return 1

    def work(message: str | dict[str, Any] | None) -> dict[str, Any]:
        if message is None:
            return asdict(segments.finish())
        if isinstance(message, str):
            return asdict(segments.compact(Path(message)))
        return forget(segments, Bounds(**message))

    for message in itertools.chain(map(json.loads, sys.stdin), [None]):
        answer = {"segment": message} if isinstance(message, str) else {}
        try:
            answer |= work(message)
        except OSError as failure:  # most likely a full disk: the journal keeps the segment
            answer["error"] = failure.strerror or str(failure)
        try:
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:  # the recorder was killed: nobody is left to tell
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            break
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
