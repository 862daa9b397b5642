"""py-spy's Chrome trace (`py-spy record -f chrometrace`)."""

from __future__ import annotations

from pathlib import Path

from perfkit import units
from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.formats import chrometrace
from perfkit.importers import json_prefix
from perfkit.importers.base import Format, Source

NAME = "pyspy-chrometrace"
FORMAT = Format(
    title="py-spy, Chrome trace",
    made_by="`py-spy record -f chrometrace`",
    recognised_by="the category `py-spy` on its events",
    gives="samples with times",
    lacks="wall-clock times (the file is taken to end when it was written; `--started-at` says it)",
    tried="py-spy 0.4.3",
)


def sniff(head: bytes, path: Path) -> bool:
    """Recognise py-spy's category on its events."""
    del path
    return head.lstrip()[:1] in (b"[", b"{") and is_py_spys(head)


def is_py_spys(head: bytes) -> bool:
    """Whether its category is on an event."""
    return b'"py-spy"' in head and b'"cat":"py-spy"' in head.replace(b" ", b"")


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all intervals. The file has no wall clock; it is taken to end when it was written."""
    trace = _load(source)
    start_ns = source.started_at_ns
    if start_ns is None:
        start_ns = source.modified_ns - trace.length_ns
        writer.note(
            f"{source.name} has no wall-clock times: it is taken to begin at "
            f"{units.timestamp(start_ns)}, its length before the file was last written, which is "
            "approximate; say --started-at to set it"
        )
    writer.add(chrometrace.to_batch(trace, writer.stacks, anchor_wall_ns=start_ns))


def _load(source: Source) -> chrometrace.Trace:
    content = source.read()
    try:
        return chrometrace.load(content)
    except InputError:
        if source.on_damage is None:
            raise
        text, at, whole = json_prefix.beginning(
            json_prefix.until_bad_text(content), lambda path: path in ((), ("traceEvents",))
        )
        if whole or not text:
            raise
        trace = chrometrace.load(text)
        json_prefix.pass_over(source, at, len(content))
        return trace
