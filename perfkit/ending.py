"""How SIGTERM and SIGHUP end a command: as ^C does, and at once even inside a library's call."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

_PATIENCE_S = 2.0
"""So long the interpreter may take to leave what it is in; a library's call may last minutes."""

_woken: int | None = None
_last: list[Callable[[], None]] = []


def end_on_signals() -> None:
    """From now on let SIGTERM and SIGHUP end this process through whatever cleans up.

    For the command line alone; the main thread calls it. Signals that are ignored stay ignored.
    """
    global _woken
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _leave)
    # Python's own handlers wait until a library's call returns; this tells a thread at once.
    _woken, writes = os.pipe()
    os.set_blocking(writes, False)
    signal.set_wakeup_fd(writes, warn_on_full_buffer=False)


def at_worst(work: Callable[[], None]) -> None:
    """Do this, in a thread, if a signal ends the process before it could clean up itself."""
    if _woken is not None and not _last:
        threading.Thread(target=_wait_for_signal, args=(_woken,), daemon=True).start()
    if work not in _last:
        _last.append(work)


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _wait_for_signal(pipe: int) -> None:
    while True:
        number = os.read(pipe, 1)[0]
        # Only where nobody else, such as a recording, has taken the signal over.
        if number in (signal.SIGTERM, signal.SIGHUP) and signal.getsignal(number) is _leave:
            break
    time.sleep(_PATIENCE_S)
    # Workers first: they write where the rest is to be removed.
    multiprocessing = sys.modules.get("multiprocessing")
    for child in multiprocessing.active_children() if multiprocessing else ():
        child.kill()
        child.join(_PATIENCE_S)
    for work in _last:
        work()
    os._exit(128 + number)
