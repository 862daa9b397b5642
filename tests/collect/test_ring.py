"""The ring: which parts go; and that recordings end at their limits."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from perfkit.capture import Capture
from perfkit.collect import spool
from perfkit.collect.limits import Limits, parse_trigger
from perfkit.collect.options import Options
from perfkit.collect.record import Recording
from perfkit.collect.ring import Bounds, forget
from perfkit.compact import Part
from perfkit.errors import UsageError
from tests.collect.otlp_bench import PROTOBUF, START_NS, traces
from tests.collect.programs import PYTHON, running, script
from tests.collect.test_cli_record import start, wait_for

S = 10**9


class Written:
    """Stands for a SegmentCompactor: what it wrote, and which generation of stacks it is in."""

    def __init__(self, parts: list[Part], generation: int) -> None:
        self.parts = parts
        self.generation = generation

    def renew_stacks(self) -> None:
        self.generation += 1


def written(directory: Path) -> Written:
    now = time.time_ns()
    made = []
    for age_s, table, rows, generation in (
        (90, "spans", 10, 0), (90, "stacks", 5, 0), (90, "samples", 9, 0), (60, "metrics", 7, 0),
        (30, "spans", 20, 0), (29, "stacks", 6, 1), (29, "samples", 8, 1), (5, "spans", 30, 1),
    ):  # fmt: skip
        path = directory / f"{table}-{age_s}"
        path.write_bytes(b"x" * 100)
        made.append(Part(path, table, rows, 100, now - age_s * S, generation))
    return Written(made, 1)


OLDEST = ["spans-90", "samples-90", "stacks-90"]


@pytest.mark.parametrize(
    ("bounds", "gone"),
    [
        (Bounds(), []),
        (Bounds(age_ns=100 * S), []),
        (Bounds(age_ns=50 * S), [*OLDEST, "metrics-60"]),
        (Bounds(age_ns=1), [*OLDEST, "metrics-60", "spans-30", "samples-29", "stacks-29",
                            "spans-5"]),
        (Bounds(size_bytes=700), ["spans-90"]),
        (Bounds(size_bytes=600), OLDEST),
        (Bounds(size_bytes=500), OLDEST),
        (Bounds(size_bytes=800), []),
        (Bounds(spans=50), ["spans-90"]),
        (Bounds(spans=49), [*OLDEST, "metrics-60", "spans-30"]),
    ],
)  # fmt: skip
def test_the_oldest_goes_and_stacks_with_their_samples(
    tmp_path: Path, bounds: Bounds, gone: list[str]
) -> None:
    known = written(tmp_path)
    rows = {part.path.name: part.rows for part in known.parts}
    answer = forget(known, bounds)
    left = {path.name for path in tmp_path.iterdir()}
    assert rows.keys() - left == set(gone)
    assert {part.path.name for part in known.parts} == left
    assert answer["size_bytes"] == -100 * len(gone)
    assert -sum(answer["rows"].values()) == sum(rows[name] for name in gone)


def test_the_generation_that_still_grows_stays(tmp_path: Path) -> None:
    """Samples that come next may name what is in it."""
    known = written(tmp_path)
    forget(known, Bounds(spans=0))
    assert known.generation == 1
    assert [part.path.name for part in known.parts] == ["stacks-29"]


def send(recording: Recording, times: int = 1, *, slow_ns: int = 1000) -> None:
    import urllib.request

    request = traces()
    for number in range(times):
        for place, span in enumerate(request.resource_spans[0].scope_spans[0].spans):
            span.trace_id = (number + 1).to_bytes(16, "big")
            span.span_id = (2 * number + place + 1).to_bytes(8, "big")
            span.end_time_unix_nano = START_NS + slow_ns
        post = urllib.request.Request(
            f"{recording.endpoints[0]}/v1/traces",
            request.SerializeToString(),
            {"Content-Type": PROTOBUF},
        )
        urllib.request.urlopen(post, timeout=20).read()


def recording(tmp_path: Path, limits: Limits, **options: object) -> Recording:
    return Recording(
        Options(
            output=tmp_path / "x.perfkit",
            otlp=("127.0.0.1", 0),
            stacks=False,
            limits=limits,
            **options,
        )
    )


def wait_in_thread(one: Recording) -> list[str]:
    reasons: list[str] = []
    thread = threading.Thread(target=lambda: reasons.append(one.wait()), daemon=True)
    thread.start()
    wait_for(lambda: reasons)
    return reasons


def test_a_ring_forgets_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_SEGMENT_AGE_S", 0.2)
    one = recording(tmp_path, Limits(ring_ns=3600 * S, max_spans=4))
    one.start()
    for _ in range(4):
        send(one)
        compacted = one._required_store.compactor
        before = compacted.rows.get("spans", 0) + compacted.forgotten.get("spans", 0)
        wait_for(
            lambda c=compacted, b=before: c.rows.get("spans", 0) + c.forgotten.get("spans", 0) > b
        )
    thread = threading.Thread(target=one.wait, daemon=True)
    thread.start()
    wait_for(lambda: compacted.forgotten.get("spans"))
    one.interrupt()
    thread.join(20)
    summary = one.stop()
    assert summary.info.rows["spans"] == 4
    capture = Capture.open(summary.path)
    assert capture.table("spans").collect().height == 4
    assert any("A ring" in note for note in capture.info.notes)


def test_enough_spans_end_it(tmp_path: Path) -> None:
    one = recording(tmp_path, Limits(max_spans=6))
    one.start()
    send(one, 3)
    assert wait_in_thread(one) == ["span limit"]
    assert one.stop("span limit").info.rows["spans"] == 6


def test_enough_bytes_end_it(tmp_path: Path) -> None:
    one = recording(tmp_path, Limits(max_bytes=2000))
    one.start()
    assert wait_in_thread(one) == ["size limit"]
    one.stop("size limit")


def test_a_slow_service_fires_the_trigger(tmp_path: Path) -> None:
    one = recording(tmp_path, Limits(trigger=parse_trigger("p95 > 500ms")), metrics=False)
    one.start()
    send(one, 30, slow_ns=2 * S)
    assert wait_in_thread(one) == ["trigger"]
    summary = one.stop("size limit")
    assert any("p95 > 500ms: p95 was" in note for note in summary.info.notes)


def test_what_is_about_spans_needs_a_receiver(tmp_path: Path) -> None:
    options = Options(tmp_path / "x.perfkit", pid=os.getpid(), limits=Limits(max_spans=1))
    with pytest.raises(UsageError, match="--max-spans is about spans"):
        Recording(options).start()


def test_head_and_tail_sampling_reach_the_capture(tmp_path: Path) -> None:
    sampling = {"head_ratio": 0.25, "tail_ratio": 0.001, "tail_slow_ns": S}
    one = recording(tmp_path, Limits(), sampling=sampling, metrics=False)
    one.start()
    send(one, 100)
    send(one, 1, slow_ns=2 * S)
    summary = one.stop()
    spans = Capture.open(summary.path).table("spans").collect()
    requests = spans.filter(kind="server")
    # The slow one has the id of an ordinary one: one trace, which is kept.
    assert requests["adjusted_count"].sum() == pytest.approx(4 * 101)
    assert requests.height == 10 + 2
    assert summary.info.rows["spans"] == spans.height
    assert any("Tail sampling" in note for note in summary.info.notes)


@pytest.mark.parametrize("how", ["signal", "size"])
def test_the_program_runs_on_when_a_ring_is_frozen(tmp_path: Path, how: str) -> None:
    program = script(
        tmp_path,
        """
        import os, sys, time
        while not os.path.exists("x.perfkit/capture.json") or '"finished_ns": null' in open(
            "x.perfkit/capture.json"
        ).read():
            time.sleep(0.05)
        sys.exit(7)
        """,
    )
    limit = ("--max-size", "1KiB") if how == "size" else ("--ring", "10m")
    options = ("--no-stacks", "-o", "x.perfkit", *limit)
    recorder = start("record", *options, "--", PYTHON, program, directory=tmp_path)
    if how == "signal":
        # The handler is there before the capture is.
        wait_for((tmp_path / "x.perfkit" / "capture.json").exists)
        recorder.send_signal(signal.SIGUSR1)
    _, errors = recorder.communicate(timeout=60)
    assert recorder.returncode == 7, errors
    assert ("frozen" if how == "signal" else "size limit") in errors
    assert Capture.open(tmp_path / "x.perfkit").finished


def test_a_frozen_recording_of_a_running_process_leaves_it_alone(tmp_path: Path) -> None:
    with running(PYTHON, "-c", "import time; print('up', flush=True); time.sleep(600)") as process:
        options = ("--no-stacks", "--ring", "10m", "-o", "x.perfkit")
        recorder = start("record", "--pid", str(process.pid), *options, directory=tmp_path)
        wait_for((tmp_path / "x.perfkit" / "capture.json").exists)
        recorder.send_signal(signal.SIGUSR1)
        recorder.communicate(timeout=60)
        assert recorder.returncode == 0
        assert process.poll() is None
