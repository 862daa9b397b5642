"""Who holds the interpreter's lock, seen from outside."""

from __future__ import annotations

import ctypes
import io
import json
import os
import struct
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from perfkit.capture import Capture
from perfkit.collect import access, elf, processes
from perfkit.collect.gil import Gil, GilWatch
from perfkit.collect.options import Options
from perfkit.collect.record import Recording
from tests.collect.programs import PYTHON, other_pythons, running, script, skip_without_ptrace

# `python` computes in Python and so holds the lock, `native` computes in C, which lets go of it,
# and `nap` sleeps.
PROGRAM = """
import hashlib, threading, time

def python():
    while True:
        sum(range(1000))

def native():
    data = b"x" * 5_000_000
    while True:
        hashlib.sha256(data)

def nap():
    while True:
        time.sleep(0.01)

threads = [threading.Thread(target=f, name=f.__name__, daemon=True) for f in (python, native, nap)]
for thread in threads:
    thread.start()
print({thread.native_id: thread.name for thread in threads}, flush=True)
time.sleep(600)
"""

each_python = pytest.mark.parametrize("python", [PYTHON, *other_pythons()])

pytestmark = pytest.mark.skipif(
    sys.implementation.name != "cpython" or bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="there is no GIL here",
)


def test_a_variable_is_where_the_linker_put_it() -> None:
    real = ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))
    found = elf.locate(os.getpid(), b"_PyRuntime", "libpython")
    assert found is not None
    assert found[0] == real
    assert elf.locate(os.getpid(), b"no_such_variable", "libpython") is None


def test_a_damaged_file_has_no_variables() -> None:
    data = Path(sys.executable).resolve().read_bytes()[:100_000]
    for end in (0, 10, 63, 64, 5000, len(data)):
        try:
            assert elf.find(io.BytesIO(data[:end]), b"_PyRuntime") is None
        except (ValueError, OverflowError, struct.error):
            continue  # what `locate` takes for not found
    assert elf.find(io.BytesIO(b"#!/bin/sh\n" * 100), b"_PyRuntime") is None


@each_python
def test_the_lock_is_held_by_the_thread_that_runs_python(tmp_path: Path, python: str) -> None:
    skip_without_ptrace()
    with running(python, script(tmp_path, PROGRAM)) as program:
        names = eval(program.first_line)  # type: ignore[attr-defined]
        lock = Gil.find(program.pid)
        assert lock is not None
        threads = set(processes.threads(program.pid))
        holders: Counter[str | None] = Counter()
        for _ in range(300):
            holder = lock.holder(threads)
            holders[names.get(holder, "main") if holder else None] += 1
            time.sleep(0.002)
        assert lock.trusted
        lock.close()
    held = sum(count for name, count in holders.items() if name)
    assert held > 30
    assert holders["python"] > 0.8 * held


@pytest.mark.real
@each_python
def test_py_spy_says_the_same(tmp_path: Path, python: str) -> None:
    skip_without_ptrace()
    holders: Counter[str] = Counter()
    with running(python, script(tmp_path, PROGRAM)) as program:
        names = eval(program.first_line)  # type: ignore[attr-defined]
        command = [access.require_py_spy(), "dump", "--json", "--pid", str(program.pid)]
        for _ in range(40):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            for thread in json.loads(done.stdout or "[]"):
                if thread["owns_gil"]:
                    holders[names.get(thread["os_thread_id"], "main")] += 1
    assert holders["python"] > 0.8 * sum(holders.values()) > 5


@each_python
def test_a_forked_child_has_a_lock_of_its_own(tmp_path: Path, python: str) -> None:
    skip_without_ptrace()
    code = """
        import os, time
        child = os.fork()
        while not child: sum(range(1000))
        print(child, flush=True)
        time.sleep(600)
    """
    with running(python, script(tmp_path, code)) as program:
        child = int(program.first_line)  # type: ignore[attr-defined]
        try:
            lock, parents = Gil.find(child), Gil.find(program.pid)
            assert lock is not None
            assert parents is not None
            seen = {lock.holder({child}) for _ in range(200)}
            assert child in seen
            assert seen <= {child, None}
            assert {parents.holder({program.pid}) for _ in range(20)} <= {None, program.pid}
            lock.close()
            parents.close()
        finally:
            os.kill(child, 9)


def test_what_has_no_such_lock() -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            assert Gil.find(other.pid) is None
        finally:
            other.kill()
    assert Gil.find(other.pid) is None
    assert not GilWatch(enabled=False).find(os.getpid())


def test_a_lock_that_makes_no_sense_is_given_up(tmp_path: Path) -> None:
    # A "memory" whose holder points to a thread that does not exist.
    file = tmp_path / "memory"
    file.write_bytes(struct.pack("<QIIQ", 16, 1, 0, 77))
    watch = GilWatch(enabled=True)
    lock = Gil(1, os.open(file, os.O_RDONLY), 0, 0, ())
    watch._locks[1] = watch._seen[1] = lock
    assert [watch.holder(1, {5}) for _ in range(100)] == [None] * 100
    assert watch.pids == []
    assert watch.describe() == []


@pytest.mark.real
@each_python
def test_a_recording_says_for_how_long_each_thread_held_it(tmp_path: Path, python: str) -> None:
    skip_without_ptrace()
    path = tmp_path / "x.perfkit"
    with running(python, script(tmp_path, PROGRAM)) as program:
        recording = Recording(Options(path, pid=program.pid, duration_ns=4 * 10**9))
        recording.start()
        summary = recording.stop(recording.wait())
    (source,) = (each for each in summary.info.sources if each["name"] == "py-spy")
    (gil,) = source["gil"]
    assert gil["looks"] > 20
    samples = Capture.open(path).table("samples").collect()
    assert samples["gil_ns"].null_count() == 0
    held = dict(samples.group_by("thread_name").agg(pl.col("gil_ns").sum()).iter_rows())
    assert held["python"] > 0.8 * sum(held.values())
    # The sums over rows are those over looks.
    length = (samples["ts_ns"] + samples["duration_ns"]).max() - samples["ts_ns"].min()
    assert sum(held.values()) == pytest.approx(gil["held_ratio"] * length, rel=0.25)
