"""Recordings of real processes with known phases."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from perfkit.capture import Capture
from perfkit.collect import access, processes
from perfkit.collect.options import Options
from perfkit.collect.pyspy import PySpy
from perfkit.collect.record import Recording
from perfkit.collect.sampling import Wishes
from perfkit.collect.status import Summary
from perfkit.errors import CaptureError, RecordError, UsageError
from tests.collect.programs import (
    PHASES,
    PYTHON,
    SERVER,
    functions,
    running,
    script,
    skip_without_own_ptrace,
    skip_without_ptrace,
)

SECOND = 10**9
MS = 10**6


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.perfkit"


def record(options: Options) -> Summary:
    recording = Recording(options)
    recording.start()
    return recording.stop(recording.wait())


def test_a_started_program_with_known_phases(tmp_path: Path, path: Path) -> None:
    skip_without_own_ptrace()
    truth_path = tmp_path / "truth.json"
    command = (PYTHON, script(tmp_path, PHASES), "3", str(truth_path), "1")
    summary = record(Options(path, command=command, wishes=Wishes(rate=200, max_overhead_ratio=1)))
    assert summary.reason == "command ended"
    assert summary.exit_status == 0
    capture = Capture.open(path)
    assert capture.finished
    samples = functions(capture)
    truth = [tuple(row) for row in json.loads(truth_path.read_text())]
    assert {"busy", "nap"} <= set(samples["functions"].explode())
    # Running is the time on a CPU, whatever the machine does besides.
    window = samples["ts_ns"].min(), samples["ts_ns"].max()
    worker = samples.filter(thread_name="worker-0")
    running_ns = worker.filter(state="running")["duration_ns"].sum()
    cpu_ns = sum(row[5] for row in truth if row[1] == "worker-0" and window[0] <= row[3])
    assert running_ns == pytest.approx(cpu_ns, rel=0.35)
    assert set(samples["thread_name"]) >= {"MainThread", "worker-0", "short"}
    assert samples["tid"].n_unique() > 4
    # py-spy does not always know the name of a thread that it saw in its first instant.
    names = dict(samples.select("tid", "thread_name").drop_nulls().iter_rows())
    assert all(names[tid] == name for tid, name, *_ in truth if tid in names)
    # Threads that ended are not reported until the end, where py-spy leaves their stacks open.
    ended = {tid: end for tid, name, _, _, end, _ in truth if name == "short" and tid in names}
    lasts = samples.group_by("tid").agg(
        (pl.col("ts_ns") + pl.col("duration_ns")).max().alias("end")
    )
    seen_until = dict(lasts.iter_rows())
    close = max(seen_until.values())
    too_long = sum(max(seen_until[tid] - end, 0) for tid, end in ended.items())
    assert too_long < 0.4 * sum(max(close - end, 0) for end in ended.values())
    stats = capture.table("metrics").collect()
    measured = set(stats["name"])
    assert {"process.memory.usage", "system.cpu.utilization"} <= measured
    # A share of time needs two looks, for which a very busy machine may leave no time.
    looks = stats.filter(name="process.memory.usage")["ts_ns"].n_unique()
    assert looks < 2 or "process.cpu.utilization" in measured
    assert f"{Path(command[1]).name} (pid {samples['pid'][0]})" in set(stats["instance"])


def test_a_running_program_in_segments_without_a_gap(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without_ptrace()
    monkeypatch.setattr("perfkit.collect.record.SEGMENT_S", 1.0)
    command = (PYTHON, script(tmp_path, PHASES), "60", str(tmp_path / "truth"), "1")
    with running(*command) as program:
        summary = record(Options(path, pid=program.pid, duration_ns=4 * SECOND))
        assert summary.reason == "duration"
        assert program.poll() is None
    (source,) = (each for each in summary.info.sources if each["name"] == "py-spy")
    assert source["segments"] >= 2
    assert source["pid"] == program.pid
    assert source["settings"][0]["reasons"]
    worker = functions(Capture.open(path)).filter(thread_name="worker-0").sort("ts_ns")
    ends = worker["ts_ns"] + worker["duration_ns"]
    gaps = (worker["ts_ns"][1:] - ends[:-1]).to_numpy()
    assert gaps.min() > -MS, "one thread has one stack at a time"
    assert gaps.max() < 400 * MS
    assert worker["duration_ns"].sum() > 2.5 * SECOND
    # A trace that begins in the middle of a call must not make another call of it.
    assert {tuple(names[-2:]) for names in worker["functions"] if "busy" in names} <= {
        ("step", "busy"),
        ("busy", "sum"),
    }


@pytest.mark.real
def test_processes_below_are_told_apart(tmp_path: Path, path: Path) -> None:
    skip_without_own_ptrace()
    if sys.platform != "linux":
        pytest.skip("needs /proc")
    program = """
        import multiprocessing, os, time
        def child_work(end):
            while time.monotonic() < end: sum(range(1000))
        def parent_work(end):
            while time.monotonic() < end: time.sleep(0.01)
        if __name__ == "__main__":
            end = time.monotonic() + 3
            context = multiprocessing.get_context("spawn")
            children = [context.Process(target=child_work, args=(end,)) for _ in range(2)]
            for child in children: child.start()
            parent_work(end)
            for child in children: child.join()
    """
    if os.geteuid() != 0:
        skip_without_ptrace()  # children are not admitted by the shim
    summary = record(Options(path, command=(PYTHON, script(tmp_path, program))))
    samples = functions(Capture.open(path)).explode("functions")
    parents = set(samples.filter(functions="parent_work")["pid"])
    children = set(samples.filter(functions="child_work")["pid"])
    assert len(parents) == 1
    assert len(children) == 2
    assert not parents & children
    (source,) = (each for each in summary.info.sources if each["name"] == "py-spy")
    assert source["settings"][-1]["subprocesses"]
    metrics = Capture.open(path).table("metrics").collect()
    measured = " ".join(metrics["instance"].unique())
    assert all(f"(pid {pid})" in measured for pid in parents | children)


def test_spans_of_the_command_arrive_even_those_sent_at_its_end(tmp_path: Path, path: Path) -> None:
    program = """
        import os, time
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from perfkit.otel import SpanProcessor
        provider = TracerProvider()
        provider.add_span_processor(SpanProcessor())
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        for number in range(50):
            with provider.get_tracer("test").start_as_current_span("work"):
                pass
        provider.shutdown()
    """
    options = Options(
        path,
        command=(PYTHON, script(tmp_path, program)),
        otlp=("127.0.0.1", 0),
        stacks=False,
        metrics=False,
        env={"OTEL_SERVICE_NAME": "shop"},
    )
    recording = Recording(options)
    recording.start()
    pid = recording._command.pid if recording._command else 0
    summary = recording.stop(recording.wait())
    assert summary.exit_status == 0
    spans = Capture.open(path).table("spans").collect()
    assert spans.height == 50
    assert set(spans["service"]) == {"shop"}
    assert set(spans["pid"]) == {pid}
    assert set(spans["thread_id"]) == {pid}
    assert (spans["start_ns"] >= summary.info.anchors["wall_ns"]).all()
    (source,) = (each for each in summary.info.sources if each["name"] == "otlp")
    assert source["received"]["spans"] == 50


def test_a_command_that_is_not_python_is_recorded_without_stacks(path: Path) -> None:
    summary = record(Options(path, command=("sh", "-c", "sleep 0.3; exit 3")))
    assert summary.exit_status == 3
    assert any("no Python process" in note for note in summary.info.notes)
    assert Capture.open(path).has("metrics")


def test_a_command_that_a_signal_ends_has_the_status_of_a_shell(path: Path) -> None:
    summary = record(Options(path, command=("sh", "-c", "kill -TERM $$"), stacks=False))
    assert summary.exit_status == 128 + 15


def test_a_command_that_goes_on_is_ended_with_the_recording(path: Path) -> None:
    code = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\n"
        "time.sleep(60)"
    )
    options = Options(path, command=(PYTHON, "-c", code), stacks=False, duration_ns=SECOND)
    summary = record(options)
    assert summary.reason == "duration"
    assert summary.exit_status is None


@pytest.mark.real
def test_a_program_that_ends_ends_the_recording(tmp_path: Path, path: Path) -> None:
    skip_without_ptrace()
    program = subprocess.Popen(
        [PYTHON, "-c", "print(1, flush=True); import time; time.sleep(1.5)"], stdout=subprocess.PIPE
    )
    assert program.stdout is not None
    program.stdout.readline()
    recording = Recording(Options(path, pid=program.pid))
    recording.start()
    reason = recording.wait(tick=lambda: program.poll() and None)
    assert reason == "process ended"
    recording.stop(reason)
    program.stdout.close()
    assert Capture.open(path).has("samples")


def test_a_busy_threaded_server(tmp_path: Path, path: Path) -> None:
    skip_without_ptrace()
    with running(PYTHON, script(tmp_path, SERVER)) as program:
        url = f"http://127.0.0.1:{program.first_line}/"  # type: ignore[attr-defined]
        recording = Recording(Options(path, pid=program.pid, duration_ns=2 * SECOND))
        recording.start()

        def load(_: int) -> None:
            for _ in range(40):
                urllib.request.urlopen(url).read()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(load, range(4)))
        recording.stop(recording.wait())
    samples = functions(Capture.open(path)).explode("functions")
    computing = samples.filter(functions="compute")
    assert computing["duration_ns"].sum() > 100 * MS
    # Each request has a thread of its own, which is gone right after.
    assert computing["tid"].n_unique() > 10
    per_thread = computing.group_by("tid").agg(pl.col("duration_ns").sum())
    assert per_thread["duration_ns"].median() < 300 * MS


# What cannot be


def nothing_is_left(path: Path) -> None:
    assert not path.exists()


def test_impossible_options(path: Path) -> None:
    for options in (Options(path), Options(path, pid=1, command=("true",))):
        with pytest.raises(UsageError):
            Recording(options).start()
    nothing_is_left(path)


def test_a_process_that_is_not_python_is_refused(path: Path) -> None:
    skip_without_ptrace()
    program = subprocess.Popen(["sleep", "60"])
    try:
        with pytest.raises(RecordError, match="does not run Python"):
            Recording(Options(path, pid=program.pid)).start()
    finally:
        program.kill()
        program.wait()
    nothing_is_left(path)


def test_of_a_program_that_is_not_python_all_but_stacks_is_recorded(path: Path) -> None:
    program = subprocess.Popen(["sleep", "60"])
    try:
        recording = Recording(Options(path, pid=program.pid, otlp=("127.0.0.1", 0)))
        recording.start()
        assert "(sleep) does not run Python" in (recording.problem or "")
        recording.interrupt()
        summary = recording.stop(recording.wait())
    finally:
        program.kill()
        program.wait()
    assert summary.info.rows["metrics"] > 0
    assert any("perf script" in note for note in summary.info.notes)


def test_no_such_process_and_no_such_command(path: Path) -> None:
    program = subprocess.Popen(["true"])
    program.wait()
    with pytest.raises(RecordError, match="no process"):
        Recording(Options(path, pid=program.pid)).start()
    with pytest.raises(RecordError, match="cannot start 'no-such-command'"):
        Recording(Options(path, command=("no-such-command",))).start()
    nothing_is_left(path)


def test_a_port_in_use_starts_nothing(tmp_path: Path, path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        marker = tmp_path / "started"
        options = Options(
            path, command=("touch", str(marker)), otlp=("127.0.0.1", taken.getsockname()[1])
        )
        with pytest.raises(RecordError, match="in use"):
            Recording(options).start()
    assert not marker.exists()
    nothing_is_left(path)


def test_an_existing_capture_is_not_touched(path: Path) -> None:
    path.mkdir()
    (path / "file").write_text("mine")
    with pytest.raises(CaptureError, match="already exists"):
        Recording(Options(path, command=("true",), stacks=False)).start()
    assert [entry.name for entry in path.iterdir()] == ["file"]


def test_one_process_has_one_recorder(tmp_path: Path, path: Path) -> None:
    skip_without_ptrace()
    with running(PYTHON, script(tmp_path, SERVER)) as program:
        first = Recording(Options(path, pid=program.pid, duration_ns=2 * 10**9))
        first.start()
        second = path.with_name("y.perfkit")
        with pytest.raises(RecordError, match="already being recorded"):
            Recording(Options(second, pid=program.pid)).start()
        nothing_is_left(second)
        first.stop(first.wait())  # not at once: py-spy is to take a sample
    assert Capture.open(path).has("samples")


def test_a_full_disk_ends_the_recording_and_keeps_what_there_is(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perfkit.journal import Journal

    recording = Recording(Options(path, command=("sleep", "60"), stacks=False))
    recording.start()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    ticks = []

    def tick() -> None:
        ticks.append(None)
        if len(ticks) == 15:
            monkeypatch.setattr(Journal, "append_entry", full)

    reason = recording.wait(tick)
    monkeypatch.undo()
    assert reason == "disk full"
    recording.stop(reason)
    capture = Capture.open(path)
    assert capture.finished
    assert capture.table("metrics").select("ts_ns").unique().collect().height >= 1


def test_the_second_interrupt_gives_up_the_segment(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without_ptrace()
    # A py-spy that does not end.
    monkeypatch.setattr(PySpy, "interrupt", lambda self: None)
    with running(PYTHON, script(tmp_path, SERVER)) as program:
        recording = Recording(Options(path, pid=program.pid))
        recording.start()
        recording.interrupt()
        recording.interrupt()
        summary = recording.stop(recording.wait())
        assert program.poll() is None
    assert summary.reason == "interrupted"
    (loss,) = summary.info.lost
    assert (loss.what, loss.count) == ("segments of stacks", 1)
    capture = Capture.open(path)
    assert capture.has("metrics")
    assert not capture.has("samples")


@pytest.mark.real
def test_a_blocking_py_spy_that_is_killed_leaves_the_program_running(
    tmp_path: Path, path: Path
) -> None:
    skip_without_ptrace()
    with running(PYTHON, script(tmp_path, SERVER)) as program:
        recording = Recording(
            Options(path, pid=program.pid, wishes=Wishes(rate=200, blocking=True))
        )
        recording.start()
        first = recording._stacks._current if recording._stacks else None
        assert first is not None
        first.spy.kill()

        another_since: float | None = None

        def until_another_has_sampled() -> None:
            nonlocal another_since
            current = recording._stacks._current if recording._stacks else None
            if current is None or current is first:
                return
            # "Sampling process" comes before the first sample: interrupted at once it has none.
            another_since = another_since or time.monotonic()
            if time.monotonic() > another_since + 2:
                recording.interrupt()

        summary = recording.stop(recording.wait(until_another_has_sampled))
        deadline = time.monotonic() + 10
        while processes.state(program.pid) in ("T", "t") and time.monotonic() < deadline:
            time.sleep(0.02)
        assert processes.state(program.pid) in ("R", "S")
    assert any("py-spy ended without writing" in loss.why for loss in summary.info.lost)
    assert Capture.open(path).has("samples")


def test_processes_that_may_not_be_seen_are_named(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without_own_ptrace()
    refused: list[int] = []
    monkeypatch.setattr(access, "may_attach", lambda pid: bool(refused.append(pid)))
    code = "import time; time.sleep(600)"
    recording = Recording(Options(path, command=(PYTHON, "-c", code), duration_ns=60 * SECOND))
    recording.start()
    summary = recording.stop(recording.wait(lambda: recording.interrupt() if refused else None))
    assert refused
    assert any("no stacks of 1 of 1 processes" in note for note in summary.info.notes)
