"""Nothing is lost: a recorder is killed at random moments, and its disk fills up.

What was acknowledged to a sender of spans must be in the capture, once; of stacks at most the last
segment may be missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from perfkit.capture import Capture
from perfkit.journal import JOURNAL_DIR, StackMeta, StackSegment
from tests.collect.programs import PHASES, PYTHON, helpers, running, script, skip_without_ptrace
from tests.collect.spans import Sender, captured_ids, durable_points, port_of

KILLS = 30
SEGMENT_S = 2.0

# The recorder with short segments of stacks, so that a kill meets all that happens between them.
RECORDER = f"""
import perfkit.collect.record
perfkit.collect.record.SEGMENT_S = {SEGMENT_S}
from perfkit.cli.main import run
run()
"""


def written(files: StackSegment) -> bool:
    """Whether py-spy wrote all of it; one that goes into the capture meanwhile is."""
    try:
        return bool(json.loads(files.trace.read_bytes()))
    except FileNotFoundError:  # the trace goes last
        return not files.meta.exists()
    except ValueError:
        return False


def begun_segments(path: Path) -> list[StackMeta]:
    """Return the segments of the journal up to the last one whose predecessors are on disk.

    While one py-spy takes over from another, both run, and neither has written anything yet.
    """
    found = []
    for file in (path / JOURNAL_DIR).glob("stacks-??????.meta"):
        with contextlib.suppress(Exception):  # compacted meanwhile
            found.append((StackMeta.load(file), written(StackSegment(file.with_suffix(".json")))))
    found.sort(key=lambda segment: segment[0].wall_ns)
    before = [True, *(whole for _, whole in found)]
    return [meta for (meta, _), whole in zip(found, before, strict=False) if whole]


def kill_and_check(pid: int, path: Path, delay_s: float, *, everybody: bool) -> dict[str, int]:
    """Record a program, kill the recorder after a while, and look at what there is."""
    recorder = subprocess.Popen(
        [
            *(PYTHON, "-c", RECORDER, "record", "--pid", str(pid), "--otlp", "127.0.0.1:0"),
            *("--max-overhead", "100%", "-o", str(path)),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert recorder.stderr is not None
    try:
        sender = Sender(port_of(iter(recorder.stderr.readline, "")))
        time.sleep(delay_s)
        # Held still, so that what is durable can be seen before it dies.
        recorder.send_signal(signal.SIGSTOP)
        points = durable_points(path)
        segments = begun_segments(path)
        dying = [recorder.pid, *helpers(path)] if everybody else [recorder.pid]
        for process in dying:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    finally:
        recorder.kill()
        recorder.wait()
        recorder.stderr.close()
    sender.finish()
    capture = Capture.open(path)
    assert not capture.finished
    assert any("killed" in note for note in capture.info.notes)
    ids = captured_ids(capture)
    assert len(ids) == len(set(ids)), "a span came twice"
    assert sender.acknowledged <= set(ids), "an acknowledged span is missing"
    assert set(ids) <= sender.sent
    metrics = capture.table("metrics").select("ts_ns", "name").collect()
    assert points <= set(metrics.iter_rows())
    samples = capture.table("samples").collect()
    if len(segments) > 1:
        # All but the last segment is there. A segment's first look is a little after its start.
        end = (samples["ts_ns"] + samples["duration_ns"]).max()
        assert isinstance(end, int)
        assert end >= segments[-1].wall_ns - 10**8
    assert samples.join(capture.table("stacks").collect(), on="stack_id", how="anti").is_empty()
    reopened = Capture.open(path)
    assert sorted(captured_ids(reopened)) == sorted(ids)
    assert reopened.table("samples").collect().height == samples.height
    return {"spans": len(ids), "samples": samples.height, "points": metrics.height}


@pytest.mark.real
def test_a_recorder_that_is_killed_at_random_moments_loses_next_to_nothing(tmp_path: Path) -> None:
    skip_without_ptrace()
    seed = int(os.environ.get("PERFKIT_SEED", random.randrange(10**6)))
    print("PERFKIT_SEED", seed)
    moments = random.Random(seed)
    totals = {"spans": 0, "samples": 0, "points": 0}
    command = (PYTHON, script(tmp_path, PHASES), "3600", str(tmp_path / "truth"), "2")
    with running(*command) as program:
        for number in range(KILLS):
            path = tmp_path / f"{number}.perfkit"
            delay_s = moments.uniform(0, 2.5 * SEGMENT_S)
            found = kill_and_check(program.pid, path, delay_s, everybody=moments.random() < 0.3)
            totals = {name: count + found[name] for name, count in totals.items()}
            assert program.poll() is None
            state = Path(f"/proc/{program.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
            assert state not in "Tt"
            deadline = time.monotonic() + 60
            while helpers(path):
                assert time.monotonic() < deadline, "a helper outlives the recorder"
                time.sleep(0.05)
            shutil.rmtree(path)
    print(totals)
    assert min(totals.values()) > 0


# Runs in mount and user namespaces of its own: a file system of 150 MB, a recorder that writes to
# it, and a file that takes all the rest of it at once.
FULL_DISK = """
import json, os, subprocess, sys, time
from pathlib import Path
from perfkit.capture import Capture
from tests.collect.spans import Sender, captured_ids, port_of

disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=150m", "perfkit-test", disk], check=True)
path = disk / "x.perfkit"
recorder = subprocess.Popen(
    [sys.executable, "-m", "perfkit.cli", "record", "--otlp", "127.0.0.1:0", "-o", path]
    + ["--", sys.executable, "-c", "import time; time.sleep(600)"],
    stderr=subprocess.PIPE, text=True,
)
sender = Sender(port_of(iter(recorder.stderr.readline, "")), padding=os.urandom(10_000).hex())
deadline = time.monotonic() + 60
while len(sender.acknowledged) < 200 and time.monotonic() < deadline:
    time.sleep(0.01)
with open(disk / "filler", "wb", buffering=0) as filler:
    try:
        while True:
            filler.write(bytes(1 << 16))
    except OSError as error:
        full = error.errno
said = recorder.stderr.read()
status = recorder.wait()
sender.finish()

def found():
    capture = Capture.open(path)
    return {
        "finished": capture.finished,
        "ids": captured_ids(capture),
        "points": capture.table("metrics").collect().height,
    }

on_full = found()
(disk / "filler").unlink()
print(json.dumps({
    "errno": full, "said": said, "status": status, "on_full": on_full, "later": found(),
    "acknowledged": sorted(sender.acknowledged), "sent": len(sender.sent),
}))
"""


@pytest.mark.real
def test_a_disk_that_fills_up_ends_the_recording_and_keeps_what_was_acknowledged(
    tmp_path: Path,
) -> None:
    isolated = ("unshare", "--map-root-user", "--mount")
    if shutil.which("unshare") is None or subprocess.run([*isolated, "true"]).returncode:
        pytest.skip("no namespaces of one's own here")
    disk = tmp_path / "disk"
    disk.mkdir()
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [*isolated, sys.executable, "-c", textwrap.dedent(FULL_DISK), str(disk)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["errno"] == 28
    assert result["status"] == 1
    assert "Traceback" not in result["said"]
    assert "the disk is full, so recording stopped" in result["said"]
    acknowledged = set(result["acknowledged"])
    assert len(acknowledged) >= 200
    for when in ("on_full", "later"):
        assert acknowledged <= set(result[when]["ids"]), when
        assert len(result[when]["ids"]) == len(set(result[when]["ids"])), when
        assert result[when]["points"] > 0
