"""A program that its control group throttles, recorded: metrics, contention, and advice."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import polars as pl
import pytest

from perfkit.analysis.session import Tables
from perfkit.capture import Capture
from tests.collect.programs import PYTHON, running, script, skip_without_ptrace
from tests.collect.quota import limited

pytestmark = pytest.mark.real

BUSY = """
import threading

def work():
    while True:
        sum(range(1000))

threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
print("ready", flush=True)
"""


def test_a_quota_that_is_too_small_is_named(tmp_path: Path) -> None:
    skip_without_ptrace()
    path = tmp_path / "x.perfkit"
    with limited(0.1) as group, running(PYTHON, script(tmp_path, BUSY)) as program:
        (group / "cgroup.procs").write_text(str(program.pid))
        command = [PYTHON, "-m", "perfkit.cli"]
        record = ["record", "--pid", str(program.pid), "--duration", "12s", "-o", str(path)]
        done = subprocess.run([*command, *record], capture_output=True, text=True, timeout=180)
        program.kill()
        program.wait()
    assert done.returncode == 0, done.stderr
    tables = Tables(Capture.open(path))
    metrics = tables.frame("metric_stats").filter(pl.col("name").str.starts_with("container.cpu"))
    grown = dict(metrics.select("name", "increase").iter_rows())
    assert grown["container.cpu.throttled.periods"] > 0.25 * grown["container.cpu.periods"] > 0
    assert grown["container.cpu.throttled.time"] > 1
    limit = metrics.filter(name="container.cpu.limit")["last"].to_list()
    assert limit == [pytest.approx(0.1)]
    contention = tables.frame("contention").filter(kind="cpu throttling")
    assert contention.height > 0
    shown = subprocess.run(
        [*command, "show", str(path), "--json"], capture_output=True, text=True, timeout=180
    )
    assert "cpu.throttled" in json.dumps(json.loads(shown.stdout)), shown.stderr
