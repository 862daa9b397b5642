"""JMeter's results (`.jtl`) as CSV: one row a sample. `timeStamp` is its start in ms, or a date.

A transaction is the sum of samples of its thread. Where these are rows of their own, it would count
their time once more and is left out; where only it was written, it is kept.
"""

from __future__ import annotations

from pathlib import Path

from perfkit.capture import CaptureWriter
from perfkit.formats import times
from perfkit.importers import load_tests, tables
from perfkit.importers.base import Format, Source
from perfkit.importers.rows import SpanRows, scaled

NAME = "jmeter"
FORMAT = Format(
    title="JMeter results, CSV (`.jtl`)",
    made_by="`jmeter -n -t PLAN -l results.jtl`",
    recognised_by="columns `timeStamp`, `elapsed`, `label`",
    gives="spans of requests, as the client saw them",
    lacks="what the server did; HTTP method; transactions, where their samples are there",
    tried="JMeter 2.13",
)

_MS = 10**6
_SEPARATORS = ",;\t|"
_TRANSACTION = "Number of samples in transaction"


def sniff(head: bytes, path: Path) -> bool:
    """Recognise its columns."""
    del path
    return {"timeStamp", "elapsed", "label"} <= set(tables.header(head, _SEPARATORS))


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all samples."""
    last_start_ns: dict[str, int] = {}  # of each thread's sample before
    local = 0
    with SpanRows(source, writer) as rows:
        for place, row in tables.rows(
            source, "timeStamp", "elapsed", "label", separators=_SEPARATORS
        ):
            start_ns, duration_ns = _start_ns(row["timeStamp"]), scaled(row["elapsed"], _MS)
            local += not row["timeStamp"].isdigit()
            thread = row.get("threadName", "")
            if row.get("responseMessage", "").startswith(_TRANSACTION):
                before = last_start_ns.get(thread)
                if before is not None and start_ns is not None and before >= start_ns:
                    rows.reject("transaction whose samples are there themselves")
                    continue
            elif start_ns is not None:
                last_start_ns[thread] = start_ns
            unique = (
                f"{source.content_name} {place.rpartition(' ')[2]} "
                f"{row['timeStamp']} {row['elapsed']}"
            )
            _add(rows, row, unique, start_ns, duration_ns)
    if local:
        writer.note(
            f"{source.name} has dates without a zone, which are taken as UTC; JMeter writes local "
            "time: jmeter.save.saveservice.timestamp_format=ms says it"
        )


def _start_ns(text: str) -> int | None:
    return scaled(text, _MS) if text.isdigit() else times.from_text(text.replace("/", "-"))


def _add(
    rows: SpanRows, row: dict[str, str], unique: str, start_ns: int | None, duration_ns: int | None
) -> None:
    code = row.get("responseCode", "")
    failed = row.get("success", "true").lower() == "false"
    message = row.get("failureMessage") or row.get("responseMessage")
    load_tests.add(
        rows,
        "jmeter",
        unique,
        row["label"],
        start_ns,
        duration_ns,
        url=row.get("URL") if row.get("URL") != "null" else None,
        status=int(code) if code.isascii() and code.isdigit() and len(code) == 3 else None,
        failed=failed,
        message=message if failed else None,
        attributes={
            "thread.name": row.get("threadName"),
            "jmeter.latency_ms": tables.number(row.get("Latency")),
            "jmeter.connect_ms": tables.number(row.get("Connect")),
        },
    )
