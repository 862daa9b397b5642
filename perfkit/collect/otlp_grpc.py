"""OTLP over gRPC, with the extra `grpc`: the same intake as over HTTP.

https://opentelemetry.io/docs/specs/otlp/#otlpgrpc
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from perfkit.collect.intake import (
    LOGS,
    MAX_BODY_BYTES,
    METRICS,
    PROTOBUF,
    RETRY_AFTER_S,
    TRACES,
    UNAVAILABLE,
    Intake,
    Refused,
    Signal,
    answer,
)
from perfkit.errors import RecordError

# Before grpc is loaded: it would write its own lines into our terminal, and its handlers would run
# in every child that we fork.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
try:
    import grpc
    from google.protobuf.duration_pb2 import Duration
    from google.rpc.error_details_pb2 import RetryInfo
    from google.rpc.status_pb2 import Status
except ImportError as error:
    raise RecordError(
        "receiving OTLP over gRPC needs grpcio, which is not installed",
        hint="pip install 'perfkit[grpc]', or have the program export over HTTP: "
        "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
    ) from error

_THREADS = 16
_CLOSE_GRACE_S = 5.0
_MESSAGE_S = 30.0
"""A call occupies a thread until its message is there; it may not do so for longer."""
_KEEPALIVE_MS = 60_000
NOT_WHOLE = (
    f"gRPC call without a whole message: over {MAX_BODY_BYTES >> 20} MiB, or given up by its sender"
)
UNKNOWN_METHOD = "gRPC call of a method that OTLP does not have"
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_SERVICES = {
    "opentelemetry.proto.collector.trace.v1.TraceService": TRACES,
    "opentelemetry.proto.collector.metrics.v1.MetricsService": METRICS,
    "opentelemetry.proto.collector.logs.v1.LogsService": LOGS,
}


class _Patience:
    """Cancels calls whose message does not come: a few of them would occupy all threads."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._since: dict[Any, float] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="otlp grpc waits", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def with_call(self, context: Any) -> Iterator[None]:
        """Watch a call while its message is waited for."""
        with self._lock:
            self._since[context] = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                del self._since[context]

    def close(self) -> None:
        """Watch no longer."""
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closed.wait(self._patience_s / 8):
            limit = time.monotonic() - self._patience_s
            with self._lock:
                late = [context for context, since in self._since.items() if since < limit]
            for context in late:
                context.cancel()


class _Unknown(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Asked last: counts the calls that nothing serves, which gRPC answers with UNIMPLEMENTED."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def service(self, handler_call_details: Any) -> None:
        """Count a call."""
        del handler_call_details
        self._intake.count(self._intake.refused, UNKNOWN_METHOD)


class GrpcServer:
    """Serves until it is closed."""

    def __init__(
        self, address: tuple[str, int], intake: Intake, *, patience_s: float = _MESSAGE_S
    ) -> None:
        """Bind and begin to serve. Raises OSError."""
        self._intake = intake
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        host, port = str(found[4][0]), address[1]
        self.ip = ipaddress.ip_address(host)
        # gRPC does not say why it cannot listen, so a socket of ours asks first.
        with socket.socket(found[0]) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
        self._server = grpc.server(
            ThreadPoolExecutor(_THREADS, thread_name_prefix="otlp grpc"),
            options=[
                # Holds for a message as it came and for what it inflates to.
                ("grpc.max_receive_message_length", MAX_BODY_BYTES),
                ("grpc.so_reuseport", 0),
                # A client whose machine is gone says nothing more.
                ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ],
        )
        for service, signal in _SERVICES.items():
            # Unary on the wire. As a stream, a call is heard of also when no message comes.
            handler = grpc.stream_unary_rpc_method_handler(self._export(signal))
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, {"Export": handler}),)
            )
        self._server.add_generic_rpc_handlers((_Unknown(intake),))
        target = f"[{host}]:{port}" if self.ip.version == 6 else f"{host}:{port}"
        try:
            self.port: int = self._server.add_insecure_port(target)
        except RuntimeError as error:
            raise OSError(errno.EADDRINUSE, str(error)) from error
        self._patience = _Patience(patience_s)
        self._server.start()

    def close(self) -> None:
        """Stop listening, and let requests that are being served be acknowledged."""
        self._server.stop(_CLOSE_GRACE_S).wait()
        self._patience.close()

    def _export(self, signal: Signal) -> Callable[[Iterator[bytes], Any], bytes]:
        def export(messages: Iterator[bytes], context: Any) -> bytes:
            try:
                body = self._message(messages, context)
                metadata = dict(context.invocation_metadata())
                self._intake.authorise(metadata.get("authorization"))
                taken = self._intake.take(signal, PROTOBUF, body, gzipped=False)
            except Refused as refusal:
                self._intake.refuse(refusal)
                context.set_trailing_metadata(_details(refusal))
                context.abort(_CODES[refusal.code], str(refusal))
            return b"" if signal is LOGS else bytes(answer(signal, taken).SerializeToString())

        return export

    def _message(self, messages: Iterator[bytes], context: Any) -> bytes:
        """Wait for a call's message. Raises what gRPC wants of a call that is over."""
        try:
            with self._patience.with_call(context):
                return next(messages)
        except (StopIteration, grpc.RpcError):
            self._intake.count(self._intake.refused, NOT_WHOLE)
            # Unless gRPC itself has answered, or nobody is there any more.
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no whole message came")
            raise


def _details(refusal: Refused) -> tuple[tuple[str, bytes], ...]:
    """Encode a Status for the trailer; with RetryInfo when the sender may come again."""
    status = Status(code=refusal.code, message=str(refusal))
    if refusal.code == UNAVAILABLE:
        status.details.add().Pack(RetryInfo(retry_delay=Duration(seconds=RETRY_AFTER_S)))
    return (("grpc-status-details-bin", status.SerializeToString()),)
