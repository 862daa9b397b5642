"""Programs to record, and helpers to look at what was recorded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

from perfkit.capture import Capture
from perfkit.collect.access import ptrace_scope

# Threads `worker-0` … alternate between `busy` (computes) and `nap` (sleeps) for SECONDS; the main
# thread starts short-lived threads meanwhile. The truth is written as JSON rows of
# [thread id, thread name, function, begin, end, CPU time], in Unix ns and ns.
PHASES = """
import json, sys, threading, time

seconds, truth_path, workers = float(sys.argv[1]), sys.argv[2], int(sys.argv[3])
truth = []

def busy(length):
    end = time.perf_counter() + length
    while time.perf_counter() < end:
        sum(range(200))

def nap(length):
    time.sleep(length)

def step(function, length):
    begin, cpu = time.time_ns(), time.thread_time_ns()
    function(length)
    who = threading.get_native_id(), threading.current_thread().name
    end, cpu = time.time_ns(), time.thread_time_ns() - cpu
    truth.append((*who, function.__name__, begin, end, cpu))

def work(end):
    while time.monotonic() < end:
        step(busy, 0.15)
        step(nap, 0.2)

end = time.monotonic() + seconds
threads = [threading.Thread(target=work, args=(end,), name=f"worker-{n}") for n in range(workers)]
for thread in threads:
    thread.start()
print("ready", flush=True)
while time.monotonic() < end:
    short = threading.Thread(target=step, args=(nap, 0.1), name="short")
    short.start()
    short.join()
    time.sleep(0.2)
for thread in threads:
    thread.join()
with open(truth_path, "w") as file:
    json.dump(truth, file)
"""

# A small threaded server: POST /stop ends it, anything else computes for 3 ms and sleeps for 2.
SERVER = """
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

def compute():
    end = time.perf_counter() + 0.003
    while time.perf_counter() < end:
        pass

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        compute()
        time.sleep(0.002)
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""

PYTHON = sys.executable
_OTHER_VERSIONS = ("python3.11", "python3.12", "python3.13", "python3.14")


def other_pythons() -> list[str]:
    """Return other interpreters to record: on the path, of pyenv, in $PERFKIT_TEST_PYTHONS."""
    named = os.environ.get("PERFKIT_TEST_PYTHONS", "").split(os.pathsep)
    paths = [shutil.which(name) for name in (*filter(None, named), *_OTHER_VERSIONS)]
    paths += sorted(map(str, Path.home().glob(".pyenv/versions/3.*/bin/python3")))
    by_version: dict[str, str] = {}
    for path in filter(None, paths):
        # What is on the path may be a script that starts another one, or nothing.
        code = (
            "import sys; print(sys.version_info[:2] >= (3, 11), sys.version); print(sys.executable)"
        )
        asked = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
        if asked.stdout.startswith("True"):
            version, _, real = asked.stdout.strip().rpartition("\n")
            by_version.setdefault(version, real)
    mine = os.path.realpath(PYTHON)
    return [path for path in by_version.values() if os.path.realpath(path) != mine]


def script(directory: Path, text: str) -> str:
    """Write a program and return its path."""
    path = directory / "program.py"
    path.write_text(textwrap.dedent(text))
    return str(path)


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program until the block ends; it has written its first line by then."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.first_line = process.stdout.readline().strip()  # type: ignore[attr-defined]
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def skip_without_ptrace() -> None:
    """Skip where only descendants of the recorder may be looked into."""
    if (ptrace_scope() or 0) >= 1 and os.geteuid() != 0:
        pytest.skip("kernel.yama.ptrace_scope lets us look only into what perfkit starts")


def skip_without_own_ptrace() -> None:
    """Skip where not even a program that perfkit starts may be looked into."""
    if (ptrace_scope() or 0) >= 2 and os.geteuid() != 0:
        pytest.skip("kernel.yama.ptrace_scope lets only root look into processes")


def helpers(path: Path) -> list[int]:
    """Return the processes that still work on a capture: their command lines name it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(path).encode() in line:
                found.append(int(entry.name))
    return found


def functions(capture: Capture) -> pl.DataFrame:
    """Return samples with `functions`: the names on the stack, root first."""
    frames = dict(capture.table("frames").select("frame_id", "function").collect().iter_rows())
    parents = {
        stack: (parent, frames[frame])
        for stack, parent, frame in capture.table("stacks")
        .select("stack_id", "parent_id", "frame_id")
        .collect()
        .iter_rows()
    }

    def path(stack: int | None) -> list[str]:
        names: list[str] = []
        while stack is not None:
            stack, name = parents[stack]
            names.append(name)
        return names[::-1]

    samples = capture.table("samples").collect()
    names = {stack: path(stack) for stack in samples["stack_id"].unique()}
    return samples.with_columns(
        functions=pl.Series(
            [names[stack] for stack in samples["stack_id"]], dtype=pl.List(pl.String)
        )
    ).sort("ts_ns")
