"""`perfkit show` on a recording that goes on: once, in a pipe, and on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
import pytest
from click.testing import CliRunner
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from perfkit.capture import Capture, CaptureWriter
from perfkit.cli.show import command
from perfkit.journal import JOURNAL_DIR, Journal, Kind, Record

NOW = 1_790_000_000_000_000_000
COLUMNS, ROWS = 80, 12
_SIZE = ("COLUMNS", "LINES")


def body(first: int, count: int) -> Record:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number in range(first, first + count):
        scope.spans.add(
            trace_id=number.to_bytes(16, "big"),
            span_id=number.to_bytes(8, "big"),
            name=f"GET /{'long-' * 20}{number}",
            kind=2,
            start_time_unix_nano=NOW + number * 10**6,
            end_time_unix_nano=NOW + number * 10**6 + 5000,
        )
    return Record(Kind.TRACES_PROTOBUF, False, request.SerializeToString())


class Recording:
    """A writer that lives, and what it has journaled and not compacted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer = CaptureWriter(path)
        self.writer.save_info()
        self._journal = Journal(path / JOURNAL_DIR)
        self._next = 1
        self.open = True

    def receive(self, count: int) -> None:
        self._journal.append(body(self._next, count))
        self._journal.sync()
        self._next += count

    def end(self) -> None:
        self._journal.close()
        self.writer.close()
        self.open = False


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    made = Recording(tmp_path / "live.perfkit")
    yield made
    if made.open:
        made.end()


def test_a_living_capture_has_what_is_only_journaled(recording: Recording) -> None:
    recording.receive(3)
    before = sorted(path.name for path in recording.path.rglob("*"))
    capture = Capture.open(recording.path, live=True)
    assert capture.living
    assert capture.table("spans").collect().height == 3
    assert Capture.open(recording.path).table("spans").collect().height == 0
    recording.receive(2)
    assert Capture.open(recording.path, live=True).table("spans").collect().height == 5
    assert sorted(path.name for path in recording.path.rglob("*")) == before
    recording.end()
    ended = Capture.open(recording.path, live=True)
    assert not ended.living
    assert ended.table("spans").collect().height == 5


def test_show_says_that_it_is_still_being_recorded(recording: Recording) -> None:
    recording.receive(3)
    done = CliRunner().invoke(command, [str(recording.path)], catch_exceptions=False)
    assert "3 requests" in done.stdout
    assert "still being recorded" in done.stdout
    assert "orderly" not in done.stdout


def perfkit(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "perfkit.cli", *arguments]


def until(holds: Callable[[], bool], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.real
def test_a_pipe_gets_one_look_after_the_other_without_control_characters(
    recording: Recording, tmp_path: Path
) -> None:
    recording.receive(3)
    out = tmp_path / "out.txt"
    with out.open("wb") as file:
        shown = subprocess.Popen(
            perfkit("show", str(recording.path), "--watch", "100ms"), stdout=file, stderr=file
        )
    until(lambda: "3 requests" in out.read_text())
    recording.receive(4)
    until(lambda: "7 requests" in out.read_text())
    recording.end()
    assert shown.wait(60) == 0
    text = out.read_text()
    assert "\x1b" not in text
    assert text.count("--- 2") >= 2
    last = text.rsplit("--- 2", 1)[1]
    assert "7 requests" in last
    assert "still being recorded" not in last[last.rindex("requests") :]
    # All but the command at the end, which is to be copied.
    assert max(len(line) for line in text.splitlines() if "perfkit report" not in line) <= 80


@pytest.mark.real
def test_a_terminal_is_rewritten_in_place_and_never_overrun(recording: Recording) -> None:
    recording.receive(3)
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    fd, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {name: text for name, text in os.environ.items() if name not in _SIZE}
    words = perfkit("show", str(recording.path), "--watch", "100ms")
    shown = subprocess.Popen(words, stdin=child, stdout=child, stderr=child, env=environment)
    os.close(child)
    raw = bytearray()

    def shows(words: str) -> bool:
        if select.select([fd], [], [], 0.1)[0]:
            data = os.read(fd, 65536)
            raw.extend(data)
            stream.feed(data)
        return any(words in line for line in screen.display)

    until(lambda: shows("3 requests"))
    assert "live.perfkit" in screen.display[0]
    assert screen.display[-1].strip() == "" or "^C to end" in screen.display[-1]
    recording.receive(4)
    until(lambda: shows("7 requests"))
    until(lambda: shows("^C to end"))
    assert "live.perfkit" in screen.display[0]
    assert not any("3 requests" in line for line in screen.display)
    assert b"\x1b[1m" in raw  # in colour
    shown.send_signal(signal.SIGINT)
    assert shown.wait(60) == 0
    os.close(fd)
