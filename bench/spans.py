"""Import, analysis and report of a capture of one million spans."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench.generate import write_otlp
from bench.measure import Row, isolated

SPANS = 1_000_000
TABLES = (
    "tree",
    "requests",
    "span_times",
    "critical_path",
    "endpoints",
    "tools",
    "components",
    "operations",
    "edges",
    "queries",
    "query_repeats",
    "serial_calls",
    "tool_calls",
    "span_tree",
)


def parse_only(directory: str) -> int:
    """Parse the files with protobuf's own parser and do nothing else."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    count = 0
    for path in sorted(Path(directory).glob("*.pb")):
        request = ExportTraceServiceRequest()
        request.ParseFromString(path.read_bytes())
        count += sum(len(s.spans) for r in request.resource_spans for s in r.scope_spans)
    return count


def import_otlp(directory: str, capture: str) -> int:
    """Import the files as `perfkit import` does."""
    from perfkit.capture import CaptureWriter
    from perfkit.importers import import_files

    with CaptureWriter(Path(capture)) as writer:
        import_files([Path(directory)], writer)
    return writer.info.rows["spans"]


def analyse(capture: str) -> int:
    """Compute every derived table of spans."""
    from perfkit.analysis.session import Tables
    from perfkit.capture import Capture

    tables = Tables(Capture.open(Path(capture)))
    return sum(tables.frame(name).height for name in TABLES)


def report(capture: str, output: str) -> int:
    """Make the full report: analysis, rules and page."""
    from perfkit.analysis.session import Tables
    from perfkit.capture import Capture
    from perfkit.report.render import render
    from perfkit.rules.evaluate import run
    from perfkit.rules.load import load_rules

    tables = Tables(Capture.open(Path(capture)))
    html = render(tables, run(load_rules(), tables), title="bench")
    Path(output).write_text(html, encoding="utf-8")
    return len(html)


def self_time_vectorised(capture: str) -> int:
    """Compute self times with perfkit; the sum checks the peer."""
    from perfkit.analysis.session import Tables
    from perfkit.capture import Capture

    tables = Tables(Capture.open(Path(capture)))
    times = tables.frame("span_times")
    return int(times["self_ns"].sum())


def self_time_loop(capture: str) -> int:
    """Compute self times with a tight Python loop over the same columns."""
    import polars as pl

    from perfkit.capture import Capture

    columns = ("trace_hi", "trace_lo", "span_id", "parent_id", "start_ns", "duration_ns")
    frame = Capture.open(Path(capture)).table("spans").select(columns).collect()
    children: dict[tuple[int, int, int], list[tuple[int, int]]] = defaultdict(list)
    rows: list[Any] = frame.rows()
    for hi, lo, _, parent, start, length in rows:
        if parent is not None:
            children[hi, lo, parent].append((start, start + length))
    total = 0
    for hi, lo, span, _, start, length in rows:
        end, covered, reached = start + length, 0, start
        for child_start, child_end in sorted(children.get((hi, lo, span), ())):
            left, right = max(child_start, reached), min(child_end, end)
            if right > left:
                covered += right - left
                reached = right
        total += length - covered
    assert frame.schema["start_ns"] == pl.Int64
    return total


def rows() -> list[Row]:
    """Measure on a million spans in 125,000 requests."""
    with tempfile.TemporaryDirectory() as folder:
        otlp, capture = str(Path(folder) / "otlp"), str(Path(folder) / "bench.perfkit")
        spans = write_otlp(Path(otlp), SPANS)
        parsed = isolated(parse_only, otlp)
        imported = isolated(import_otlp, otlp, capture)
        assert parsed.value == imported.value == spans
        stored = sum(f.stat().st_size for f in (Path(capture) / "spans").iterdir())
        analysed = isolated(analyse, capture)
        fast, slow = isolated(self_time_vectorised, capture), isolated(self_time_loop, capture)
        reported = isolated(report, capture, str(Path(folder) / "report.html"))
    equal = "equal sums" if fast.value == slow.value else "SUMS DIFFER"
    return [
        Row(
            "import OTLP protobuf, 1 M spans",
            f"{spans / imported.cpu_s / 1000:.0f} k spans/CPU s, {_gib(imported.peak_bytes)}",
            f"protobuf parse only {spans / parsed.cpu_s / 1000:.0f} k spans/CPU s",
            f"{parsed.cpu_s / imported.cpu_s:.2f}×",
            "150 k/CPU s",
            spans / imported.cpu_s >= 150_000,
        ),
        Row(
            "bytes per span on disk",
            f"{stored / spans:.1f} B",
            "the limit of the design",
            f"{stored / spans / 45:.2f}×",
            "< 45 B",
            stored / spans < 45,
        ),
        Row(
            "all derived tables of spans, 1 M spans",
            f"{analysed.wall_s:.1f} s, {_gib(analysed.peak_bytes)}",
            "the limit of the design",
            f"{analysed.wall_s / 5:.2f}×",
            "< 5 s and 2 GiB",
            analysed.wall_s < 5 and analysed.peak_bytes < 2 << 30,
        ),
        Row(
            "structure and self time, 1 M spans",
            f"{fast.cpu_s:.1f} CPU s",
            f"a tight Python loop {slow.cpu_s:.1f} CPU s ({equal})",
            f"{slow.cpu_s / fast.cpu_s:.1f}× faster",
            "≥ 5×",
            slow.cpu_s / fast.cpu_s >= 5 and fast.value == slow.value,
        ),
        Row(
            "capture to full report, 1 M spans",
            f"{reported.wall_s:.1f} s, {_gib(reported.peak_bytes)}, page {_mib(reported.value)}",
            "the limit of the design",
            f"{reported.wall_s / 10:.2f}×",
            "< 10 s",
            reported.wall_s < 10,
        ),
    ]


def _gib(value: int) -> str:
    return f"{value / (1 << 30):.2f} GiB"


def _mib(value: int) -> str:
    return f"{value / (1 << 20):.1f} MiB"
