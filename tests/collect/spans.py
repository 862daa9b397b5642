"""A sender of spans with known ids, which remembers what was acknowledged."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from perfkit.capture import Capture

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPANS_A_BODY = 20


class Sender:
    """Sends bodies of spans to a receiver, one after the other, until it is gone."""

    def __init__(self, port: int, *, padding: str = "") -> None:
        self.sent: set[int] = set()
        self.acknowledged: set[int] = set()
        self._numbers = itertools.count(1)
        self._port = port
        self._padding = padding
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait until the receiver is gone and nothing more can be sent."""
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while True:
            ids = list(itertools.islice(self._numbers, SPANS_A_BODY))
            self.sent.update(ids)
            try:
                connection.request(
                    "POST", "/v1/traces", self._body(ids), {"Content-Type": "application/json"}
                )
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                return
            if answer.status == 200:
                self.acknowledged.update(ids)

    def _body(self, ids: list[int]) -> str:
        spans = [
            {
                "traceId": TRACE_ID,
                "spanId": f"{number:016x}",
                "name": "work",
                "startTimeUnixNano": "1790000000000000000",
                "endTimeUnixNano": "1790000000001000000",
                "attributes": [{"key": "padding", "value": {"stringValue": self._padding}}],
            }
            for number in ids
        ]
        return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})


def captured_ids(capture: Capture) -> list[int]:
    """Return the ids of the captured spans, as often as they are there."""
    return capture.table("spans").select(pl.col("span_id")).collect()["span_id"].to_list()


def port_of(lines: Iterator[str]) -> int:
    """Read what a recorder says until it names the port on which it receives."""
    for line in lines:
        if "receiving OTLP at http://127.0.0.1:" in line:
            return int(line.rsplit(":", 1)[1])
    raise AssertionError("the recorder ended without receiving")


def durable_points(path: Path) -> set[tuple[int, str]]:
    """Return (time, name) of the metric points that lie in the journal of a capture."""
    from perfkit.journal import JOURNAL_DIR, Kind, read_segment, segments

    found: set[tuple[int, str]] = set()
    for segment in segments(path / JOURNAL_DIR):
        for record in read_segment(segment):
            if record.kind == Kind.METRICS_ROWS:
                rows = json.loads(record.body)
                found.update(zip(rows["ts_ns"], rows["name"], strict=True))
    return found
