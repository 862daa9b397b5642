"""Import and report of a capture of one million spans."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.analysis import every_table, heaviest_tables
from bench.generate import write_otlp
from bench.measure import Row, isolated

SPANS = 1_000_000


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


def page_beyond_tables(capture: str) -> float:
    """Return the seconds that the page takes when all tables and findings are there."""
    import time

    from perfkit.analysis import DERIVED
    from perfkit.analysis.session import Tables
    from perfkit.capture import Capture
    from perfkit.report.render import render
    from perfkit.rules.evaluate import run
    from perfkit.rules.load import load_rules

    tables = Tables(Capture.open(Path(capture)))
    for derived in DERIVED:
        tables.frame(derived.name)
    outcomes = run(load_rules(), tables)
    start = time.perf_counter()
    render(tables, outcomes, title="bench")
    return time.perf_counter() - start


def rows() -> list[Row]:
    """Measure on a million spans in 125,000 requests."""
    with tempfile.TemporaryDirectory() as folder:
        otlp, capture = str(Path(folder) / "otlp"), str(Path(folder) / "bench.perfkit")
        spans = write_otlp(Path(otlp), SPANS)
        parsed = isolated(parse_only, otlp)
        imported = isolated(import_otlp, otlp, capture)
        assert parsed.value == imported.value == spans
        stored = sum(f.stat().st_size for f in (Path(capture) / "spans").iterdir())
        tabled = isolated(every_table, capture)
        reported = isolated(report, capture, str(Path(folder) / "report.html"))
        page_s = isolated(page_beyond_tables, capture).value
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
            "all derived tables, 1 M spans of ten attributes",
            f"{tabled.wall_s:.1f} s, {_gib(tabled.peak_bytes)}{heaviest_tables(tabled)}",
            "the limit of the design",
            f"{tabled.wall_s / 5:.2f}×",
            "< 5 s and 2 GiB",
            tabled.wall_s < 5 and tabled.peak_bytes < 2 << 30,
        ),
        Row(
            "capture to full report, 1 M spans",
            f"{reported.wall_s:.1f} s, {_gib(reported.peak_bytes)}, page {_mib(reported.value)}",
            "the limit of the design",
            f"{reported.wall_s / 10:.2f}×",
            "< 10 s",
            reported.wall_s < 10,
        ),
        Row(
            "the page beyond the tables, 1 M spans",
            f"{page_s:.1f} s",
            "the limit of the design",
            f"{page_s / 5:.2f}×",
            "< 5 s",
            page_s < 5,
        ),
    ]


def _gib(value: int) -> str:
    return f"{value / (1 << 30):.2f} GiB"


def _mib(value: int) -> str:
    return f"{value / (1 << 20):.1f} MiB"
