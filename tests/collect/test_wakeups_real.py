"""A real loop that polls and a real thread that mostly waits: only the latter is set apart."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from perfkit.analysis.session import Tables
from perfkit.capture import Capture
from perfkit.collect.options import Options
from perfkit.collect.record import Recording
from perfkit.collect.sampling import Wishes
from tests.collect.programs import PYTHON, script, skip_without_own_ptrace

pytestmark = pytest.mark.real

PROGRAM = """
import selectors, socket, threading, time

end = time.monotonic() + 6
condition = threading.Condition()
ours, theirs = socket.socketpair()

def waiter():
    while time.monotonic() < end:
        with condition:
            condition.wait(0.0005)

def poller():
    selector = selectors.DefaultSelector()
    selector.register(ours, selectors.EVENT_READ)
    while time.monotonic() < end:
        selector.select(0)

threads = [threading.Thread(target=waiter) for _ in range(6)] + [threading.Thread(target=poller)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_polling_is_hot_and_waking_up_is_not(tmp_path: Path) -> None:
    skip_without_own_ptrace()
    path = tmp_path / "x.perfkit"
    command = (PYTHON, script(tmp_path, PROGRAM))
    wishes = Wishes(rate=100, max_overhead_ratio=1)
    recording = Recording(Options(path, command=command, wishes=wishes))
    recording.start()
    recording.stop(recording.wait())
    table = Tables(Capture.open(path)).frame("functions")
    waits = table.filter(
        pl.col("function").str.ends_with("wait"), pl.col("file").str.contains("threading")
    )
    polls = table.filter(pl.col("function").str.ends_with("select"))
    assert waits["running_self_ns"].sum() == 0
    assert waits["woken_self_ns"].sum() > 0
    assert polls["running_self_ns"].sum() > 0
    assert polls["woken_self_ns"].sum() == 0
