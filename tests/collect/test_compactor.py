"""The compaction worker: what it is given becomes parts, and what it cannot do stays."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perfkit.capture import Capture, CaptureWriter
from perfkit.collect import compactor as worker
from perfkit.collect.compactor import Compactor
from perfkit.journal import JOURNAL_DIR, Journal, Kind, Record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "x.perfkit"
    with CaptureWriter(target):
        pass
    return target


def segment(path: Path, count: int = 3) -> Path:
    journal = Journal(path / JOURNAL_DIR)
    for number in range(count):
        body = json.dumps({"ts_ns": [number], "name": ["load"], "value": [1.0]}).encode()
        journal.append(Record(Kind.METRICS_ROWS, False, body))
    journal.append(Record(Kind.METRICS_ROWS, False, b"damaged"))
    journal.close()
    return journal.current


def test_segments_are_compacted_elsewhere(path: Path) -> None:
    compactor = Compactor(path, [])
    for count in (3, 4):
        compactor.submit(segment(path, count))
    compactor.close()
    assert compactor.rows == {"metrics": 7}
    assert sum(compactor.rejected.values()) == 2
    assert compactor.errors == []
    assert compactor.backlog_bytes() == 0
    assert Capture.open(path).table("metrics").collect().height == 7


def test_without_work_there_is_no_worker(path: Path) -> None:
    compactor = Compactor(path, [])
    compactor.close()
    assert compactor.rows == {}
    Compactor(path, []).abandon()


def test_what_a_killed_worker_leaves_is_compacted_at_opening(path: Path) -> None:
    compactor = Compactor(path, [])
    compactor.submit(segment(path))
    compactor.abandon()
    assert compactor.errors or compactor.rows
    assert Capture.open(path).table("metrics").collect().height == 3


def test_a_segment_that_is_gone_is_an_error_and_not_the_end(path: Path) -> None:
    compactor = Compactor(path, [])
    compactor.submit(path / JOURNAL_DIR / "otlp-000099.journal")
    compactor.submit(segment(path))
    compactor.close()
    assert compactor.errors == ["No such file or directory"]
    assert compactor.rows == {"metrics": 3}


def test_a_worker_that_cannot_be_started_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    compactor = Compactor(path, [])
    first, second = (segment(path, number) for number in (1, 2))
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", fail)
        compactor.submit(first)
    compactor.submit(second)
    compactor.close()
    assert compactor.errors == []
    assert compactor.rows == {"metrics": 3}
    never = Compactor(path, [])
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", fail)
        never.submit(first)
        never.close()
    assert never.errors == ["the compaction worker cannot be started: Too many open files"]


def test_a_capture_that_is_gone_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perfkit.collect.compactor.signal.signal", lambda *_: None)
    monkeypatch.setattr("perfkit.collect.compactor.os.nice", lambda _: 0)
    assert worker.main([str(tmp_path / "gone.perfkit")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("perfkit: error: ")
    assert "gone.perfkit" in line


def test_a_worker_whose_recorder_was_killed_says_nothing(path: Path) -> None:
    waiting = segment(path)
    command = (sys.executable, "-m", worker.__name__, str(path))
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdin
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    process.stdin.write(json.dumps(str(waiting)) + "\n")
    process.stdin.close()
    said = process.stderr.read()
    assert (process.wait(), said) == (0, "")
    process.stderr.close()
    assert not waiting.exists()


def test_a_signal_to_all_processes_does_not_end_the_worker(path: Path) -> None:
    compactor = Compactor(path, [])
    compactor.submit(segment(path))
    assert compactor._process is not None
    deadline = time.monotonic() + 60
    while compactor.backlog_bytes() and time.monotonic() < deadline:
        time.sleep(0.01)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        compactor._process.send_signal(number)
    compactor.submit(segment(path, 4))
    compactor.close()
    assert (compactor.rows, compactor.errors) == ({"metrics": 7}, [])
