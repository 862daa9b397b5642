"""One run of py-spy: the process that samples, its files, and what is said of them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from perfkit.collect import processes
from perfkit.collect.pyspy import PySpy
from perfkit.collect.sampling import Settings
from perfkit.journal import StackMeta, StackSegment

_READY_TIMEOUT_S = 15.0


class NotYet(Exception):
    """py-spy ended before it took a sample; `output` is what it said."""

    def __init__(self, output: str) -> None:
        super().__init__(output)
        self.output = output


@dataclass
class Segment:
    """A py-spy that samples, and its files."""

    spy: PySpy
    files: StackSegment
    meta: StackMeta
    guard: processes.StopGuard
    start_bytes: int
    """Memory of py-spy when it began to sample."""

    def amend(self, meta: StackMeta) -> None:
        """Say more of it, on disk too where there is room: a full disk ends things elsewhere."""
        self.meta = meta
        with contextlib.suppress(OSError):
            meta.save(self.files.meta)


def begin(
    root: int,
    settings: Settings,
    files: StackSegment,
    *,
    idle: bool,
    members: Sequence[int],
    keep_open: Sequence[int],
    abandoned: threading.Event,
) -> Segment:
    """Start a py-spy and wait until it samples; `members` are the processes it may stop.

    Raises NotYet when it ends instead or `abandoned` is set, RecordError and OSError; then no
    py-spy is left, but files may be.
    """
    guard = processes.StopGuard(members)
    spy = PySpy(root, settings, files.trace, list(keep_open))
    try:
        meta = StackMeta(root, settings.rate, spy.began.wall_ns, spy.began.monotonic_ns, idle=idle)
        meta.save(files.meta)
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not spy.settled and time.monotonic() < deadline and not abandoned.is_set():
            time.sleep(0.01)
        if not spy.wait_ready(0):
            raise NotYet(spy.output_text())
        meta = replace(meta, clock_began_monotonic_ns=spy.clock_began_ns)
        meta.save(files.meta)
    except BaseException:
        spy.kill()
        spy.finish()
        raise
    return Segment(spy, files, meta, guard, processes.resident_bytes(spy.pid))
