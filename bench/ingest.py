"""Receiving OTLP: acknowledged and durable, and turned into Parquet; beside the plain ways."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl

from bench import plain_otlp
from bench.generate import SPANS_PER_BODY, Bodies
from bench.measure import Row, isolated
from perfkit import journal
from perfkit.capture import CaptureWriter
from perfkit.collect.compactor import WORKER_ENVIRONMENT
from perfkit.manifest import INFO_NAME, CaptureInfo
from perfkit.parts import write_part

BODIES = 1500
SEGMENT_BODIES = 300
WARM_BODIES = 50
SENDS = 3
ROUNDS = 6
"""So often all bodies are sent: were it more, senders would have to wait for the compaction."""
CONNECTIONS = 8
_HEADERS = {"Content-Type": "application/x-protobuf"}
_MIB = 1 << 20


def compact(directory: str) -> tuple[int, float]:
    """Compact a journal segment as the worker does; returns the spans and the CPU seconds."""
    from perfkit.compact import SegmentCompactor

    def work(path: Path, segment: Path) -> int:
        return (
            SegmentCompactor(path, CaptureInfo.load(path / INFO_NAME))
            .compact(segment)
            .rows["spans"]
        )

    return _timed(Path(directory) / "fast.perfkit", work)


def compact_one_by_one(directory: str) -> tuple[int, float]:
    """Do the same one body after the other, as it is done with those that are not plain."""
    from perfkit.bodies import decode

    def work(path: Path, segment: Path) -> int:
        writer = CaptureWriter(path.with_name("one_by_one.perfkit"))
        before = writer.info.rows.get("spans", 0)
        for record in journal.read_segment(segment):
            writer.add(decode(record))
        writer.close()
        shutil.rmtree(writer.path)
        return writer.info.rows["spans"] - before

    return _timed(Path(directory) / "alone.perfkit", work)


def compact_plainly(directory: str) -> tuple[int, float]:
    """Do the same with nothing but protobuf's parser and loops over spans and attributes."""

    def work(path: Path, segment: Path) -> int:
        frame = plain_otlp.frame(record.content() for record in journal.read_segment(segment))
        return write_part(path, "spans", f"part-{segment.stem}", frame)

    return _timed(Path(directory) / "plain.perfkit", work)


def _timed(path: Path, work: Callable[[Path, Path], int]) -> tuple[int, float]:
    """Return what work on a segment returns, and its CPU seconds.

    Work on a small one goes before: what a worker pays once is not the cost of a segment.
    """
    with CaptureWriter(path):
        pass
    work(path, _segment(path, 4))
    for part in path.glob("spans/*"):
        part.unlink()
    segment = _segment(path, SEGMENT_BODIES)
    before = time.process_time()
    spans = work(path, segment)
    return spans, time.process_time() - before


def _segment(path: Path, bodies: int) -> Path:
    generator = Bodies()
    written = journal.Journal(path / journal.JOURNAL_DIR)
    for number in range(bodies):
        body = generator.body(number)
        written.append(journal.Record(journal.Kind.TRACES_PROTOBUF, False, body))
    written.close()
    return written.current


def send(port: int, bodies: list[bytes]) -> float:
    """Send bodies over several connections; returns the seconds until all are acknowledged."""
    todo = iter(bodies)
    lock = threading.Lock()

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while True:
            with lock:
                body = next(todo, None)
            if body is None:
                return
            connection.request("POST", "/v1/traces", body, _HEADERS)
            response = connection.getresponse()
            response.read()
            assert response.status == 200, response.status

    began = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for sender in [pool.submit(work) for _ in range(CONNECTIONS)]:
            sender.result()
    return time.perf_counter() - began


def discard() -> None:
    """Serve as the peer: read each body and answer 200, and do nothing else."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}", file=sys.stderr, flush=True)
    server.serve_forever()


class Server:
    """A server in a process of its own, that says on standard error where it listens."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"http://[\d.]+:(\d+)", line):
                self.port = int(found[1])
                break

    def cpu_s(self) -> float:
        """CPU time of the process itself."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Memory of the process and of its children."""
        threads = Path(f"/proc/{self.process.pid}/task").iterdir()
        children = " ".join((thread / "children").read_text() for thread in threads)
        pages = 0
        for pid in (str(self.process.pid), *children.split()):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def end(self) -> None:
        """Interrupt it and wait."""
        self.process.send_signal(2)
        self.process.communicate(timeout=300)


def rows() -> list[Row]:
    """Measure receiving and compacting."""
    return [*_receiving(), *_compacting()]


def _receiving() -> list[Row]:
    generator = Bodies()
    bodies = [generator.body(number) for number in range(BODIES)]
    spans = BODIES * SPANS_PER_BODY
    with tempfile.TemporaryDirectory() as folder:
        capture = Path(folder) / "x.perfkit"
        options = ("--otlp", "127.0.0.1:0", "--no-metrics", "-o", str(capture))
        ours = Server(sys.executable, "-m", "perfkit.cli", "record", *options)
        rates, walls = _rates(ours, bodies)
        memory = [_peak_bytes(ours, bodies) for _ in range(ROUNDS)]
        ours.end()
        stored = sum(part.stat().st_size for part in (capture / "spans").iterdir())
    peer = Server(sys.executable, "-c", "from bench.ingest import discard; discard()")
    peer_rates, peer_walls = _rates(peer, bodies)
    peer.end()
    total = spans * (ROUNDS + SENDS) + WARM_BODIES * SPANS_PER_BODY
    rate, peer_rate = statistics.median(rates), statistics.median(peer_rates)
    growth = max(memory[ROUNDS // 2 :]) / max(memory[: ROUNDS // 2])
    return [
        Row(
            f"OTLP/HTTP acknowledged and durable, bodies of 512, {CONNECTIONS} connections",
            f"{rate / 1000:.0f} k spans/CPU s ({min(rates) / 1000:.0f} to {max(rates) / 1000:.0f} "
            f"in {SENDS}), {statistics.median(walls) / 1000:.0f} k/s beside sender",
            "the same server that reads and discards "
            f"{peer_rate / 1000:.0f} k/CPU s, {statistics.median(peer_walls) / 1000:.0f} k/s",
            f"{rate / peer_rate:.2f}×",
            "500 k/CPU s",
            rate >= 500_000,
        ),
        Row(
            f"memory while receiving {total / 1e6:.1f} M spans, compaction included",
            "at most " + ", ".join(f"{value / _MIB:.0f}" for value in memory) + " MiB",
            "its most in the first half",
            f"{growth:.2f}×",
            "flat: ≤ 1.2×",
            growth <= 1.2,
        ),
        Row(
            "bytes per received span on disk",
            f"{stored / total:.1f} B",
            "the limit of the design",
            f"{stored / total / 45:.2f}×",
            "< 45 B",
            stored / total < 45,
        ),
    ]


def _rates(server: Server, bodies: list[bytes]) -> tuple[list[float], list[float]]:
    """Send bodies several times; returns the spans a second of the server's CPU time, and a second.

    One time is no measure: on a shared machine they differ by a fifth.
    """
    send(server.port, bodies[:WARM_BODIES])
    rates, walls = [], []
    for _ in range(SENDS):
        before = server.cpu_s()
        walls.append(len(bodies) * SPANS_PER_BODY / send(server.port, bodies))
        rates.append(len(bodies) * SPANS_PER_BODY / (server.cpu_s() - before))
    return rates, walls


def _peak_bytes(server: Server, bodies: list[bytes]) -> int:
    """Send bodies; returns the most memory that was seen meanwhile."""
    seen: list[int] = []
    done = threading.Event()

    def look() -> None:
        while not (done.wait(0.02) and seen):
            with contextlib.suppress(OSError):  # a thread or the worker has just ended
                seen.append(server.resident_bytes())

    looker = threading.Thread(target=look)
    looker.start()
    send(server.port, bodies)
    done.set()
    looker.join()
    return max(seen)


def _compacting() -> list[Row]:
    os.environ.update(WORKER_ENVIRONMENT)
    with tempfile.TemporaryDirectory() as folder:
        spans, fast_cpu = isolated(compact, folder).value
        alone_spans, alone_cpu = isolated(compact_one_by_one, folder).value
        plain_spans, plain_cpu = isolated(compact_plainly, folder).value
        _check_equal(Path(folder) / "fast.perfkit", Path(folder) / "plain.perfkit")
    assert spans == alone_spans == plain_spans
    return [
        Row(
            "compaction of OTLP protobuf to Parquet, every attribute kept",
            f"{spans / fast_cpu / 1000:.0f} k spans/CPU s",
            "protobuf's parser and Python loops, equal rows "
            f"{spans / plain_cpu / 1000:.0f} k/CPU s",
            f"{plain_cpu / fast_cpu:.1f}× faster",
            "150 k/CPU s and ≥ 3×",
            spans / fast_cpu >= 150_000 and plain_cpu / fast_cpu >= 3,
        ),
        Row(
            "the same one body after the other, for what is not plain",
            f"{spans / alone_cpu / 1000:.0f} k spans/CPU s",
            f"many at once {spans / fast_cpu / 1000:.0f} k/CPU s",
            f"{fast_cpu / alone_cpu:.2f}×",
            "no goal",
            None,
        ),
    ]


def _check_equal(fast: Path, plain: Path) -> None:
    ours, theirs = (
        pl.read_parquet(path / "spans" / "*.parquet").sort("start_ns", "trace_hi", "span_id")
        for path in (fast, plain)
    )
    assert ours.drop("attributes").equals(theirs.drop("attributes"))
    for one, other in zip(ours["attributes"], theirs["attributes"], strict=True):
        assert json.loads(one) == json.loads(other)
