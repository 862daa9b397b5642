"""Files that no importer reads: what they are, as far as can be told, and what to do instead."""

from __future__ import annotations

import re

from perfkit.errors import UnknownFormat
from perfkit.importers import column_files
from perfkit.importers.base import Source

_REPLAY = (
    "python -m profiling.sampling replay --collapsed -o FILE.txt FILE.bin, and import FILE.txt; "
    "run --binary makes FILE.bin"
)
# How files begin that are known, what they are, and what to do instead. CPython's are as
# Lib/profiling/sampling has them, the binary one in either byte order.
_KNOWN_AND_NOT_READ = (
    (
        re.compile(rb"HCAT|TACH"),
        "the binary format of CPython's profiling.sampling, which only that Python reads",
        _REPLAY,
    ),
    (
        re.compile(rb'\s*\{"type":\s*"meta",[^\n]{0,300}"sample_interval_usec"'),
        "JSON lines of CPython's profiling.sampling, which have sums of frames and no stacks",
        _REPLAY,
    ),
    (
        re.compile(rb'\s*\{\s*"meta"\s*:\s*\{.{0,4000}"preprocessedProfileVersion"', re.S),
        "a profile of Firefox (as CPython's profiling.sampling --gecko makes them), which perfkit "
        "does not read",
        _REPLAY,
    ),
    (
        re.compile(rb"\s*<\?xml[^>]{0,200}\?>\s*<testResults\b"),
        "JMeter's results as XML, which perfkit does not read",
        "let JMeter write CSV: jmeter -Jjmeter.save.saveservice.output_format=csv …",
    ),
    (
        re.compile(
            rb'\s*\{\s*(?="(?:metrics|root_group)"\s*:)(?=.{0,60000}"(?:http_reqs|iterations|vus)"\s*:)',
            re.S,
        ),
        "k6's summary, which has sums and no requests",
        "k6 run --out json=FILE.json …, and import FILE.json",
    ),
    (
        re.compile(rb"Type,Name,Request Count,|Method,Name,Error,|Count,Message,Traceback"),
        "Locust's sums at the end, which have no times",
        "import the NAME_stats_history.csv beside it, made by locust --csv NAME --csv-full-history",
    ),
    (
        re.compile(rb'\s*\{\s*"log"\s*:\s*\{.{0,2000}"(?:entries|creator|browser)"\s*:', re.S),
        "a HAR file: what a browser saw of requests, which perfkit does not read",
        "record the service: perfkit record --otlp …; or import what its tracing, or the access "
        "log before it, wrote",
    ),
    (
        re.compile(
            rb'\s*\{\s*"traces"\s*:\s*\[\s*\{\s*"traceID"\s*:.{0,2000}"rootServiceName"', re.S
        ),
        "a search result of Grafana Tempo, which lists traces and has no spans",
        "take the traces: curl 'http://TEMPO:3200/api/traces/TRACE_ID' -o ID.json, for each",
    ),
    (
        re.compile(rb"PERFILE2|2ELIFREP"),
        "perf's own file",
        "perf script -i FILE > FILE.txt, on the machine where it was made; import FILE.txt",
    ),
    (
        re.compile(rb"FLR\0"),
        "a recording of Java's Flight Recorder, which perfkit does not read",
        "make collapsed stacks of it: jfrconv --cpu FILE.jfr FILE.collapsed (async-profiler)",
    ),
    (
        re.compile(rb"JAVA PROFILE "),
        "a dump of Java's heap, which says nothing of time",
        "record stacks: asprof -d 30 -o collapsed -f FILE PID (async-profiler)",
    ),
    (
        re.compile(
            rb"\s*(?:<\?xml[^>]{0,200}\?>\s*)?(?:<![^>]{0,300}>\s*)*<(?:svg|html|!doctype)\b", re.I
        ),
        "a picture or a page, of which the data cannot be had",
        "export the data: of a flame graph the collapsed stacks, of a page its JSON or CSV",
    ),
    (
        re.compile(rb"Span #\d+|[^\n]*\tTraces(?:Exporter)?\t|[^\n]{0,200}ResourceSpans #\d"),
        "what the collector's exporter `debug` prints, which is not for programs",
        "let the collector write files: exporters: file: {path: traces.jsonl}",
    ),
)
_PREFIXED = re.compile(rb"[^\n{]{1,200}\{\s*\"[^\n]*\}\s*(?:\n|\Z)")
_WRAPPED = re.compile(rb'\{\s*"log"\s*:\s*"')
# The first that a column's name matches is taken; the names of Grafana, Kibana, Tempo and others.
_GUESSES = {
    "trace_id": r"trace[ _.-]?id|trace",
    "span_id": r"span[ _.-]?id|span",
    "parent_id": r"parent([ _.-]?span)?[ _.-]?id|parent",
    "name": r"(span[ _.-]?|operation[ _.-]?)?name|operation|path|endpoint",
    "service": r"service([ _.-]?name)?",
    "start_ns": r"start([ _.-]?(time|ts))?(unixnano)?|@?timestamp|time|ts",
    "duration_ns": r"(duration|took|elapsed|latency)([ _.-]?(ns|us|ms|s|nanos))?",
    "end_ns": r"end([ _.-]?(time|ts))?(unixnano)?",
}
_UNIT = re.compile(r"[ _.-](ns|us|ms|s)$")
_NEEDED = ("trace_id", "span_id", "start_ns")
_SHOWN_COLUMNS = 12


def refusal(source: Source, known_formats: str) -> UnknownFormat:
    """Make the error for a file that no importer recognises."""
    head = source.head()
    where = str(source)
    for begins, what, hint in _KNOWN_AND_NOT_READ:
        if begins.match(head):
            return UnknownFormat(what, where=where, hint=hint)
    if _WRAPPED.match(head):
        return UnknownFormat(
            "log lines within JSON, as Docker keeps them",
            where=where,
            hint="take the lines out: jq -rj .log FILE > FILE.log",
        )
    if _PREFIXED.match(head):
        return UnknownFormat(
            "lines of JSON with something before it",
            where=where,
            hint="take it away: sed 's/^[^{]*//' FILE > FILE.jsonl; such lines are read by their "
            "format, or with --map",
        )
    columns = column_files.table_names(source)
    if columns:
        return _of_table(where, columns)
    return UnknownFormat(
        "its format is not recognised" if head else "empty file",
        where=where,
        hint=f"known formats: {known_formats}; name one with --format if it is one of them, or "
        "say with --map which of its columns mean what",
    )


def _of_table(where: str, columns: list[str]) -> UnknownFormat:
    """Name the columns, and propose what they mean where their names say it."""
    shown = ", ".join(columns[:_SHOWN_COLUMNS]) + (" …" if columns[_SHOWN_COLUMNS:] else "")
    return UnknownFormat(
        f"its format is not recognised; it is a table with the columns {shown}",
        where=where,
        hint=f"say which of them mean what, of spans: --map '{_proposal(columns)}'; of metrics: "
        "--map 'ts_ns=COLUMN:s,a.name=COLUMN'; units are s, ms, us and ns",
    )


def _proposal(columns: list[str]) -> str:
    found: dict[str, str] = {}
    for target, words in _GUESSES.items():
        for column in columns:
            name = column.removeprefix("_source.")  # as Elasticsearch's documents have it
            if column not in found.values() and re.fullmatch(words, name, re.IGNORECASE):
                unit = _UNIT.search(column)
                found[target] = f"{column}:{unit[1]}" if unit and target[-3:] == "_ns" else column
                if target == "duration_ns" and not unit:  # none is found out to be wrong
                    found[target] += ":UNIT"
                break
    for target in _NEEDED:
        found.setdefault(target, "COLUMN")
    if "duration_ns" not in found and "end_ns" not in found:
        found["duration_ns"] = "COLUMN:UNIT"
    return ",".join(f"{target}={column}" for target, column in found.items())
