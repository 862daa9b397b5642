"""What every OTLP receiver does with a body, whichever way it came: check it, and make it durable.

A body is checked, appended to the journal and acknowledged once it is on disk; its columns are made
later, elsewhere. What the check refuses is what the compaction will refuse, so that the sender is
told exactly how much of its request was not taken.

https://opentelemetry.io/docs/specs/otlp/
"""

from __future__ import annotations

import hmac
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, NamedTuple

from google.protobuf.message import Message
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from perfkit.batch import Batch
from perfkit.collect.latency import Latency
from perfkit.collect.spool import Overloaded, Spool, SpoolFailed
from perfkit.errors import InputError
from perfkit.formats import otlp, otlp_check
from perfkit.journal import Kind, Record, TooLarge

# The body limit is that of the OpenTelemetry Collector. What a body may inflate to is ours: OTLP
# shrinks about sixfold, a bomb a thousandfold.
MAX_BODY_BYTES = 20 << 20
MAX_INFLATED_BYTES = 128 << 20
_MAX_IN_FLIGHT_BYTES = 256 << 20
RETRY_AFTER_S = 1
TOO_MUCH = "too much at once"
_LIGHT_BYTES = 1 << 20
_HEAVY_THREADS = 4

PROTOBUF, JSON = "application/x-protobuf", "application/json"
INVALID_ARGUMENT, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 3, 8, 13, 14, 16
"""Codes of google.rpc.Code, which are those of gRPC."""

_WHOLE_ROWS = ("span ", "metric point ")


@dataclass(frozen=True)
class Signal:
    """What a path takes: the journal's kind and the decoder by media type, and the answer."""

    name: str
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    decoders: Mapping[str, Callable[[bytes], Batch]] = field(default_factory=dict)
    answer: type[Message] | None = None


TRACES = Signal(
    "spans",
    MappingProxyType({PROTOBUF: Kind.TRACES_PROTOBUF, JSON: Kind.TRACES_JSON}),
    MappingProxyType({PROTOBUF: otlp.traces_from_protobuf, JSON: otlp.traces_from_json}),
    trace_service_pb2.ExportTraceServiceResponse,
)
METRICS = Signal(
    "metrics",
    MappingProxyType({PROTOBUF: Kind.METRICS_PROTOBUF, JSON: Kind.METRICS_JSON}),
    MappingProxyType({PROTOBUF: otlp.metrics_from_protobuf, JSON: otlp.metrics_from_json}),
    metrics_service_pb2.ExportMetricsServiceResponse,
)
# Logs are taken and dropped: many SDKs send them whether or not anybody wants them, and an error
# would fill the log of the program that we watch.
LOGS = Signal("logs")


class Refused(Exception):
    """A request that is answered with an error; `code` is of google.rpc.Code."""

    def __init__(self, status: HTTPStatus, code: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Taken(NamedTuple):
    """How much of a request was taken."""

    rows: int
    rejected: int = 0
    why: str = ""


Done = Callable[[Taken | Refused], None]


def try_again(message: str) -> Refused:
    """Make the answer that a sender repeats its request after: nothing is lost."""
    return Refused(
        HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE, message, Retry_After=str(RETRY_AFTER_S)
    )


def _cannot_write(error: SpoolFailed) -> Refused:
    return try_again(f"cannot write the capture: {error}")


class Intake:
    """Takes bodies from many threads into a spool, and counts them."""

    def __init__(self, spool: Spool, token: str | None = None) -> None:
        """With `token`, only requests that carry it are taken."""
        self.received: Counter[str] = Counter()
        """`requests`, `bytes`, `spans`, `metrics` and `logs` that were taken."""
        self.refused: Counter[str] = Counter()
        """Requests that were refused and are lost, by reason."""
        self.postponed: Counter[str] = Counter()
        """Requests whose sender was asked to come again later, by reason."""
        self.latency = Latency()
        self._spool = spool
        self._bearer = f"Bearer {token}".encode() if token else None
        self._lock = threading.Lock()
        self._in_flight_bytes = 0
        # Few at a time: each may inflate to the limit, and more threads only wait for the GIL.
        self._heavy = ThreadPoolExecutor(_HEAVY_THREADS, thread_name_prefix="otlp check")

    def authorise(self, authorization: str | None) -> None:
        """Check the header of that name. Raises Refused."""
        given = (authorization or "").strip().encode("utf-8", "replace")
        if self._bearer is not None and not hmac.compare_digest(given, self._bearer):
            raise Refused(
                HTTPStatus.UNAUTHORIZED,
                UNAUTHENTICATED,
                "wrong or no bearer token",
                WWW_Authenticate="Bearer",
            )

    def take(self, signal: Signal, media_type: str, body: bytes, *, gzipped: bool) -> Taken:
        """Check a body and make it durable. Raises Refused."""
        if not self.reserve(len(body)):
            raise try_again(TOO_MUCH)
        try:
            outcome: Future[Taken | Refused] = Future()
            self.submit(signal, media_type, body, outcome.set_result, gzipped=gzipped)
            self.flush()
            taken = outcome.result()
        finally:
            self.release(len(body))
        if isinstance(taken, Refused):
            raise taken
        return taken

    def submit(
        self, signal: Signal, media_type: str, body: bytes, done: Done, *, gzipped: bool
    ) -> None:
        """Check a body, whose memory is reserved, and make it durable.

        Then `done` is called once, from this thread or another. What takes long to check is checked
        elsewhere, so this never takes longer than a body of 1 MiB does in protobuf.
        """
        if signal is LOGS:
            self._count("logs", len(body), 1)
            done(Taken(1))
            return
        record = Record(signal.kinds[media_type], gzipped, body)
        light = signal is TRACES and media_type == PROTOBUF and not gzipped
        if light and len(body) <= _LIGHT_BYTES:
            self._take(signal, media_type, record, done)
        else:
            self._heavy.submit(self._take_alone, signal, media_type, record, done)

    def flush(self) -> None:
        """Hear that for now nothing more is submitted."""
        self._spool.flush()

    def _take_alone(self, signal: Signal, media_type: str, record: Record, done: Done) -> None:
        self._take(signal, media_type, record, done)
        self._spool.flush()

    def close(self) -> None:
        """End the threads, once nothing is submitted any more."""
        self._heavy.shutdown()

    def _take(self, signal: Signal, media_type: str, record: Record, done: Done) -> None:
        def written(error: SpoolFailed | None) -> None:
            if error is not None:
                done(_cannot_write(error))
                return
            self._count(signal.name, len(record.body), taken.rows)
            done(taken)

        try:
            taken = self._check(signal, media_type, record)
            self._spool.submit(record, written)
        except Refused as refusal:
            done(refusal)
        except Overloaded as overload:
            done(try_again(str(overload) or "the disk cannot follow"))
        except SpoolFailed as error:
            done(_cannot_write(error))
        except Exception as error:  # a bug of ours: who sent it must not wait for ever
            why = f"cannot be checked: {type(error).__name__}"
            done(Refused(HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL, why))

    def refuse(self, refusal: Refused) -> None:
        """Count a request that was refused."""
        counter = self.postponed if refusal.code == UNAVAILABLE else self.refused
        self.count(counter, f"{refusal.status.value} {refusal.status.phrase}: {refusal!s:.100}")

    def count(self, counter: Counter[str], reason: str) -> None:
        """Count one in `received`, `refused` or `postponed`."""
        with self._lock:
            counter[reason] += 1

    def _count(self, name: str, size_bytes: int, rows: int) -> None:
        with self._lock:
            self.received["requests"] += 1
            self.received["bytes"] += size_bytes
            self.received[name] += rows

    @property
    def reserved_bytes(self) -> int:
        """Memory of the bodies that are on their way in, or wait for the disk."""
        return self._in_flight_bytes

    def reserve(self, size_bytes: int) -> bool:
        """Take so much of the memory that waiting bodies may have together, if it is there."""
        with self._lock:
            if self._in_flight_bytes + size_bytes > _MAX_IN_FLIGHT_BYTES and self._in_flight_bytes:
                return False
            self._in_flight_bytes += size_bytes
        return True

    def release(self, size_bytes: int) -> None:
        """Give memory back."""
        with self._lock:
            self._in_flight_bytes -= size_bytes

    def _check(self, signal: Signal, media_type: str, record: Record) -> Taken:
        try:
            body = record.content(MAX_INFLATED_BYTES)
            if signal is TRACES and media_type == PROTOBUF:
                durations = otlp_check.request_durations(body)
                if durations is not None:
                    self.latency.add(durations.requests_ns)
                    return Taken(durations.spans)
            batch = signal.decoders[media_type](body)
        except TooLarge as error:
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            raise Refused(status, RESOURCE_EXHAUSTED, str(error)) from error
        except InputError as error:
            raise Refused(HTTPStatus.BAD_REQUEST, INVALID_ARGUMENT, error.message) from error
        if signal is TRACES:
            self.latency.add(_durations_of(batch))
        # Other things that are rejected, such as an event without a time, cost no whole row.
        refused = {why: n for why, n in batch.rejected.items() if why.startswith(_WHOLE_ROWS)}
        return Taken(batch.rows(signal.name), sum(refused.values()), "; ".join(sorted(refused)))


def _durations_of(batch: Batch) -> list[int]:
    spans = batch.tables.get("spans", {})
    return [
        duration
        for kind, duration in zip(spans.get("kind", ()), spans.get("duration_ns", ()), strict=True)
        if kind in ("server", "consumer") and duration is not None
    ]


def answer(signal: Signal, taken: Taken) -> Any:
    """Make the Export…ServiceResponse; empty when everything was taken."""
    assert signal.answer is not None
    response: Any = signal.answer()
    if taken.rejected:
        partial = response.partial_success
        name = "rejected_spans" if signal is TRACES else "rejected_data_points"
        setattr(partial, name, taken.rejected)
        partial.error_message = taken.why
    return response
