"""From Jaeger's JSON to critical paths, beside peers that walk it with Python objects."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

# Imported here so that the time measured is the work's own.
import perfkit.analysis
import perfkit.importers  # noqa: F401
from bench import crisp
from bench.measure import Cost, Row, isolated
from bench.objects import critical_paths
from bench.shapes import requests
from perfkit.analysis.session import Tables
from perfkit.capture import Capture, CaptureWriter
from perfkit.importers import import_files

SPANS, FILES = 400_000, 10
FEWER, SIZES = 100_000, (8, 100, 1_000, 10_000)
"""Spans in all of traces of several sizes, and how many a trace has."""
CALLS, AT_ONCE = 12_000, 10
"""Calls of the one job of a trace, and how many of them run at once."""
_GOAL = 50
_BEGAN_NS = 1_700_000_000_000_000_000


def write_files(folder: str) -> int:
    """Write traces of eight spans as the query API gives them, in several files."""
    for number in range(FILES):
        first = number * SPANS // FILES
        traces = []
        for _, spans in requests(first, SPANS // FILES).group_by("trace_lo", maintain_order=True):
            trace_id = f"{spans['trace_hi'][0]:016x}{spans['trace_lo'][0]:016x}"
            services = list(dict.fromkeys(spans["service"]))
            rows = spans.iter_rows(named=True)
            traces.append(
                _trace(trace_id, services, [_span(trace_id, row, services) for row in rows])
            )
        _write(Path(folder, f"{number}.json"), traces)
    return SPANS


def write_sizes(folder: str, size: int, *, apart: bool) -> int:
    """Write traces of one size, as one document or each as a file of its own."""
    traces = (large_trace(number, size) for number in range(FEWER // size))
    if not apart:
        _write(Path(folder, "all.json"), list(traces))
        return FEWER
    for number, trace in enumerate(traces):
        _write(Path(folder, f"{number}.json"), [trace])
    return FEWER


def large_trace(number: int, size: int) -> dict[str, Any]:
    """Return a trace of three calls in each call, of which the second and third may overlap.

    No two come so close that it would depend on how much overlap is forgiven.
    """
    trace_id = f"{number + 1:032x}"
    services = [f"service-{one}" for one in range(7)]
    start, length = [number * 1_000], [10_000_000]
    for place in range(1, size):
        above, turn = (place - 1) // 3, (place - 1) % 3
        third = length[above] // 3
        start.append(start[above] + turn * third + third // 10)
        length.append(third * (14 if turn == 1 and above % 2 else 8) // 10)
    spans = [
        _span(
            trace_id,
            {
                "span_id": number * size + place + 1,
                "parent_id": number * size + (place - 1) // 3 + 1 if place else 0,
                "name": f"work {place % 50}",
                "service": services[place % 7],
                "kind": ("server", "internal", "client")[place % 3],
                "start_ns": _BEGAN_NS + start[place] * 1_000,
                "duration_ns": length[place] * 1_000,
                "db_system": "postgresql" if place % 3 == 2 else None,
                "db_statement": f"SELECT {place % 50}" if place % 3 == 2 else None,
            },
            services,
        )
        for place in range(size)
    ]
    return _trace(trace_id, services, spans)


def write_job(folder: str) -> int:
    """Write the trace of a job that makes very many short calls, some at a time.

    They come in pairs, the second within the first, so that it does not depend on how much overlap
    is forgiven: more than two calls begin or end wherever two overlap.
    """
    pair_us, services = 1_000, ["job", "store"]
    last_us = pair_us * (CALLS // 2 + AT_ONCE)
    spans = [_plain(1, 0, "nightly", "job", "internal", 0, last_us)]
    for number in range(CALLS):
        call, within = 2 + 2 * number, number % 2
        begin = pair_us * (number // 2) + 50 * within
        length = pair_us * (AT_ONCE // 2) - pair_us // 2 - 100 * within
        name = f"get {number % 50}"
        spans.append(_plain(call, 1, name, "job", "client", begin, length))
        spans.append(_plain(call + 1, call, name, "store", "server", begin + 100, length - 200))
    trace_id = f"{7:032x}"
    written = [_span(trace_id, span, services) for span in spans]
    _write(Path(folder, "job.json"), [_trace(trace_id, services, written)])
    return len(spans)


def _plain(
    span_id: int, parent_id: int, name: str, service: str, kind: str, start_us: int, length_us: int
) -> dict[str, Any]:
    return {
        "span_id": span_id,
        "parent_id": parent_id,
        "name": name,
        "service": service,
        "kind": kind,
        "start_ns": _BEGAN_NS + start_us * 1000,
        "duration_ns": length_us * 1000,
        "db_system": None,
        "db_statement": None,
    }


def _write(file: Path, traces: list[dict[str, Any]]) -> None:
    file.write_text(json.dumps({"data": traces}))


def _trace(trace_id: str, services: list[str], spans: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "traceID": trace_id,
        "spans": spans,
        "processes": {
            f"p{place}": {"serviceName": name, "tags": []} for place, name in enumerate(services)
        },
    }


def _span(trace_id: str, row: dict[str, Any], services: list[str]) -> dict[str, Any]:
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
        "startTime": row["start_ns"] // 1000,
        "duration": row["duration_ns"] // 1000,
        "tags": tags,
        "logs": [],
        "processID": f"p{services.index(str(row['service']))}",
        "warnings": None,
    }


def from_file_to_path(folder: str, capture: str) -> dict[str, int]:
    """Import the files and return the time of each operation on critical paths in µs."""
    with CaptureWriter(Path(capture)) as writer:
        import_files([Path(folder)], writer)
    return analysed(capture)


def analysed(capture: str) -> dict[str, int]:
    """Return the same of a capture that is there already."""
    tables = Tables(Capture.open(Path(capture)))
    path = tables.frame("critical_path")
    spans = tables.frame("tree").select("service", "name")[path["row"]]
    time_us = (path["end_ns"] - path["start_ns"]) // 1000
    found = spans.with_columns(time_us=time_us).group_by("service", "name").agg(pl.sum("time_us"))
    return {f"[{service}] {name}": time for service, name, time in found.iter_rows()}


def by_objects(folder: str) -> dict[str, int]:
    """Return the same by a loop as lean as we can write it."""
    found: dict[str, int] = defaultdict(int)
    files = [str(file) for file in sorted(Path(folder).iterdir())]
    for path, time in critical_paths(files).items():
        if time:
            found[path.rpartition("->")[2]] += time
    return found


def by_crisp(folder: str) -> dict[str, int]:
    """Return the same by what CRISP does."""
    return crisp.time_on_critical_paths(Path(folder))


def rows() -> list[Row]:
    """Compare the ways, with the reading of the file and without it."""
    with tempfile.TemporaryDirectory() as folder:
        files, capture = Path(folder) / "jaeger", str(Path(folder) / "jaeger.perfkit")
        files.mkdir()
        isolated(write_files, str(files))
        whole = isolated(from_file_to_path, str(files), capture)
        again = isolated(analysed, capture)
        peers = _peers(str(files))
    what = f"Jaeger JSON to critical paths, {SPANS // 1000} k spans"
    return [
        _row(f"{what} in traces of 8 in {FILES} files, from file", whole, peers),
        _row("the same from the capture, as often as one asks again", again, peers),
        *_sizes(),
        _job(),
    ]


def _sizes() -> Iterator[Row]:
    for size, apart in itertools.product(SIZES, (False, True)):
        with tempfile.TemporaryDirectory() as folder:
            files, capture = Path(folder) / "jaeger", str(Path(folder) / "jaeger.perfkit")
            files.mkdir()
            write_sizes(str(files), size, apart=apart)
            cost = isolated(from_file_to_path, str(files), capture)
            in_files = f"{FEWER // size:,} files".replace(",", " ") if apart else "one file"
            what = f"{FEWER // 1000} k spans in traces of {size} in {in_files}, from file"
            yield _row(what, cost, _peers(str(files)))


def _job() -> Row:
    with tempfile.TemporaryDirectory() as folder:
        files, capture = Path(folder) / "jaeger", str(Path(folder) / "jaeger.perfkit")
        files.mkdir()
        spans = write_job(str(files))
        cost = isolated(from_file_to_path, str(files), capture)
        peers = _peers(str(files))
    what = (
        f"one trace of {spans // 1000} k spans, a job of {CALLS // 1000} k calls, {AT_ONCE} at once"
    )
    return _row(f"{what}, from file", cost, peers)


def _peers(folder: str) -> dict[str, Cost]:
    return {
        "CRISP's way": isolated(by_crisp, folder),
        "a lean loop": isolated(by_objects, folder),
    }


def _row(what: str, cost: Cost, peers: dict[str, Cost]) -> Row:
    """Judge by the first of the peers, the published one."""
    equal = all(cost.value == peer.value for peer in peers.values())
    each = ", ".join(f"{name} {peer.cpu_s:.2f} CPU s" for name, peer in peers.items())
    ratios = [peer.cpu_s / cost.cpu_s for peer in peers.values()]
    return Row(
        what,
        f"{cost.cpu_s:.2f} CPU s",
        f"Python objects: {each} ({'equal times' if equal else 'TIMES DIFFER'} by operation)",
        " and ".join(f"{ratio:.1f}×" for ratio in ratios) + " as fast",
        f"≥ {_GOAL}×",
        equal and ratios[0] >= _GOAL,
    )
