"""From Jaeger's JSON to critical paths, beside a peer that walks it with Python objects."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

# Imported here so that the time measured is the work's own.
import perfkit.analysis
import perfkit.importers  # noqa: F401
from bench.measure import Row, isolated
from bench.objects import critical_paths
from bench.shapes import requests
from perfkit.analysis.session import Tables
from perfkit.capture import Capture, CaptureWriter
from perfkit.importers import import_files

SPANS, FILES = 400_000, 10


def write_files(folder: str) -> int:
    """Write traces of eight spans as the query API gives them, in several files."""
    for number in range(FILES):
        first = number * SPANS // FILES
        traces = []
        for _, spans in requests(first, SPANS // FILES).group_by("trace_lo", maintain_order=True):
            trace_id = f"{spans['trace_hi'][0]:016x}{spans['trace_lo'][0]:016x}"
            services = list(dict.fromkeys(spans["service"]))
            traces.append(
                {
                    "traceID": trace_id,
                    "spans": [
                        _span(trace_id, row, services) for row in spans.iter_rows(named=True)
                    ],
                    "processes": {
                        f"p{place}": {"serviceName": name, "tags": []}
                        for place, name in enumerate(services)
                    },
                }
            )
        Path(folder, f"{number}.json").write_text(json.dumps({"data": traces}))
    return SPANS


def _span(trace_id: str, row: dict[str, object], services: list[str]) -> dict[str, object]:
    start, length = int(str(row["start_ns"])) // 1000, int(str(row["duration_ns"])) // 1000
    tags = [{"key": "span.kind", "type": "string", "value": row["kind"]}]
    tags += [
        {"key": key, "type": "string", "value": row[column]}
        for key, column in (("db.system", "db_system"), ("db.statement", "db_statement"))
        if row[column]
    ]
    above = {"refType": "CHILD_OF", "traceID": trace_id}
    return {
        "traceID": trace_id,
        "spanID": f"{row['span_id']:016x}",
        "operationName": row["name"],
        "references": [above | {"spanID": f"{row['parent_id']:016x}"}] if row["parent_id"] else [],
        "startTime": start,
        "duration": length,
        "tags": tags,
        "logs": [],
        "processID": f"p{services.index(str(row['service']))}",
        "warnings": None,
    }


def from_file_to_path(folder: str, capture: str) -> int:
    """Import the files and return the length of all critical paths in µs."""
    with CaptureWriter(Path(capture)) as writer:
        import_files([Path(folder)], writer)
    path = Tables(Capture.open(Path(capture))).frame("critical_path")
    return int((path["end_ns"] - path["start_ns"]).sum()) // 1000


def analysed(capture: str) -> int:
    """Return the same of a capture that is there already."""
    path = Tables(Capture.open(Path(capture))).frame("critical_path")
    return int((path["end_ns"] - path["start_ns"]).sum()) // 1000


def by_objects(folder: str) -> int:
    """Return the same from the peer."""
    return sum(critical_paths([str(file) for file in sorted(Path(folder).iterdir())]).values())


def rows() -> list[Row]:
    """Compare both ways, with the reading of the file and without it."""
    with tempfile.TemporaryDirectory() as folder:
        files, capture = Path(folder) / "jaeger", str(Path(folder) / "jaeger.perfkit")
        files.mkdir()
        isolated(write_files, str(files))
        whole = isolated(from_file_to_path, str(files), capture)
        again = isolated(analysed, capture)
        peer = isolated(by_objects, str(files))
    equal = whole.value == again.value == peer.value
    said = "equal sums" if equal else "SUMS DIFFER"
    against = f"Python objects, trace by trace {peer.cpu_s:.1f} CPU s ({said})"
    return [
        Row(
            f"Jaeger JSON to critical paths, {SPANS // 1000} k spans, from file",
            f"{whole.cpu_s:.1f} CPU s",
            against,
            f"{peer.cpu_s / whole.cpu_s:.1f}× faster",
            "≥ 50×",
            equal and peer.cpu_s / whole.cpu_s >= 50,
        ),
        Row(
            "the same from the capture, as often as one asks again",
            f"{again.cpu_s:.2f} CPU s",
            against,
            f"{peer.cpu_s / again.cpu_s:.0f}× faster",
            "≥ 50×",
            equal and peer.cpu_s / again.cpu_s >= 50,
        ),
    ]
