"""Receives OTLP over HTTP: traces and metrics, protobuf and JSON, gzip, as the specification says.

A body is checked, appended to the journal and acknowledged once it is on disk; it is decoded
later, elsewhere (measured: decoding is 7 times as dear as everything here).

https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any

from msgspec import UNSET

from perfkit.collect.spool import Overloaded, Spool, SpoolFailed
from perfkit.errors import InputError, RecordError, UsageError
from perfkit.formats import otlp_wire
from perfkit.journal import Kind, Record, TooLarge

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 4318

# The body limit is that of the OpenTelemetry Collector. What a body may inflate to is ours: OTLP
# shrinks about sixfold, a bomb a thousandfold.
MAX_BODY_BYTES = 20 << 20
MAX_INFLATED_BYTES = 128 << 20
_MAX_IN_FLIGHT_BYTES = 256 << 20
_MAX_CONNECTIONS = 256
_IDLE_S = 120.0

_PROTOBUF, _JSON = "application/x-protobuf", "application/json"
_INVALID_ARGUMENT, _RESOURCE_EXHAUSTED, _UNAVAILABLE = 3, 8, 14  # codes of google.rpc.Code


@dataclass(frozen=True)
class _Signal:
    """What a path takes: the journal's kind and the parser by media type, and where rows are."""

    name: str
    kinds: Mapping[str, Kind]
    parsers: Mapping[str, Callable[[bytes], Any]]
    groups: str = ""
    parts: str = ""


_TRACES = _Signal(
    "spans",
    MappingProxyType({_PROTOBUF: Kind.TRACES_PROTOBUF, _JSON: Kind.TRACES_JSON}),
    MappingProxyType({_PROTOBUF: otlp_wire.parse_traces, _JSON: otlp_wire.load_json}),
    "resource_spans",
    "scope_spans",
)
_METRICS = _Signal(
    "metrics",
    MappingProxyType({_PROTOBUF: Kind.METRICS_PROTOBUF, _JSON: Kind.METRICS_JSON}),
    MappingProxyType({_PROTOBUF: otlp_wire.parse_metrics, _JSON: otlp_wire.load_json}),
    "resource_metrics",
    "scope_metrics",
)
# Logs are taken and dropped: many SDKs send them whether or not anybody wants them, and an error
# would fill the log of the program that we watch.
_LOGS = _Signal("logs", MappingProxyType({}), MappingProxyType({}))
_PATHS = {"/v1/traces": _TRACES, "/v1/metrics": _METRICS, "/v1/logs": _LOGS}


class _Refused(Exception):
    """A request that is answered with an error; `code` is of google.rpc.Code."""

    def __init__(
        self, status: HTTPStatus, code: int, message: str, *, close: bool = False, **headers: str
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.close = close
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def _bad_request(message: str, *, close: bool = False) -> _Refused:
    return _Refused(HTTPStatus.BAD_REQUEST, _INVALID_ARGUMENT, message, close=close)


def _try_again(message: str) -> _Refused:
    return _Refused(HTTPStatus.SERVICE_UNAVAILABLE, _UNAVAILABLE, message, Retry_After="1")


def parse_address(text: str) -> tuple[str, int]:
    """Read `HOST:PORT`, `HOST`, `:PORT` or `PORT`; what is missing is the default.

    Raises UsageError.
    """
    host, colon, port_text = text.rpartition(":")
    if not colon:
        host, port_text = ("", text) if text.isdigit() else (text, "")
    elif text.endswith("]") or (":" in host and not host.startswith("[")):
        host, port_text = text, ""
    try:
        port = int(port_text) if port_text else DEFAULT_PORT
        if not 0 <= port <= 65535:
            raise ValueError
        host = host.strip("[]") or DEFAULT_HOST
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (ValueError, UnicodeError, socket.gaierror):
        raise UsageError(
            f"--otlp {text!r} is not an address to listen on",
            hint="write HOST:PORT, for example 127.0.0.1:4318; and -- before a command",
        ) from None
    return host, port


class Receiver:
    """An OTLP/HTTP server that writes what it receives to a spool."""

    def __init__(self, address: tuple[str, int], spool: Spool) -> None:
        """Bind and begin to serve. Raises RecordError when the port cannot be had."""
        self.received: Counter[str] = Counter()
        """`requests`, `bytes`, `spans`, `metrics` and `logs` that were taken."""
        self.refused: Counter[str] = Counter()
        """Requests that were refused, by reason."""
        self._spool = spool
        self._lock = threading.Lock()
        self._in_flight_bytes = 0
        # Few at a time: each may inflate to the limit, and more threads only wait for the GIL.
        self._checking = threading.BoundedSemaphore(4)
        host, port = address
        try:
            self._server = _Server(host, port, self)
        except OSError as error:
            raise _cannot_listen(host, port, error) from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="otlp", daemon=True
        )
        self._thread.start()

    @property
    def endpoint(self) -> str:
        """URL for exporters on this machine (OTEL_EXPORTER_OTLP_ENDPOINT)."""
        host = self._server.ip
        if host.is_unspecified:
            host = ipaddress.ip_address("127.0.0.1" if host.version == 4 else "::1")
        return f"http://[{host}]:{self.port}" if host.version == 6 else f"http://{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self._server.ip.is_loopback

    def close(self) -> None:
        """Stop listening. Requests that are being served may still be acknowledged."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, signal: _Signal, media_type: str, body: bytes, gzipped: bool) -> None:
        """Check a body and make it durable. Raises _Refused."""
        if signal is _LOGS:
            self._count("logs", len(body), 1)
            return
        record = Record(signal.kinds[media_type], gzipped, body)
        with self._reserved(len(body)):
            with self._checking:
                rows = _check(signal, media_type, record)
            try:
                self._spool.put(record)
            except Overloaded:
                raise _try_again("the disk cannot follow") from None
            except SpoolFailed as error:
                raise _try_again(f"cannot write the capture: {error}") from error
        self._count(signal.name, len(body), rows)

    def _count(self, name: str, size_bytes: int, rows: int) -> None:
        with self._lock:
            self.received["requests"] += 1
            self.received["bytes"] += size_bytes
            self.received[name] += rows

    def count_refusal(self, reason: str) -> None:
        """Count a request that was refused."""
        with self._lock:
            self.refused[reason] += 1

    @contextlib.contextmanager
    def _reserved(self, size_bytes: int) -> Iterator[None]:
        """Bound the memory that waiting bodies take together."""
        with self._lock:
            if self._in_flight_bytes + size_bytes > _MAX_IN_FLIGHT_BYTES and self._in_flight_bytes:
                raise _try_again("too much at once")
            self._in_flight_bytes += size_bytes
        try:
            yield
        finally:
            with self._lock:
                self._in_flight_bytes -= size_bytes


def _check(signal: _Signal, media_type: str, record: Record) -> int:
    """Return how many rows a body has. Raises _Refused when it is damaged or too large."""
    try:
        return _rows(signal, signal.parsers[media_type](record.content(MAX_INFLATED_BYTES)))
    except TooLarge as error:
        raise _too_large(str(error)) from error
    except InputError as error:
        raise _bad_request(error.message) from error


def _rows(signal: _Signal, message: Any) -> int:
    """Count the rows of a parsed body. Raises InputError when it is one of another signal."""
    groups = getattr(message, signal.groups)
    if groups is UNSET and message != type(message)():
        raise InputError(f"no {signal.groups} in it")
    return sum(
        len(getattr(part, signal.name) or ())
        for group in groups or ()
        for part in getattr(group, signal.parts) or ()
    )


def _too_large(message: str, *, close: bool = False) -> _Refused:
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return _Refused(status, _RESOURCE_EXHAUSTED, message, close=close)


def _cannot_listen(host: str, port: int, error: OSError) -> RecordError:
    if error.errno == errno.EADDRINUSE:
        return RecordError(
            f"port {port} on {host} is in use by another program",
            hint=f"see which: ss -ltnp 'sport = :{port}'; or let perfkit choose one: "
            f"--otlp {host}:0 (it prints which)",
        )
    if error.errno == errno.EACCES:
        hint = "choose a port above 1023, for example --otlp 127.0.0.1:4318"
        return RecordError(f"no permission to listen on port {port}", hint=hint)
    return RecordError(
        f"cannot listen on {host}:{port}: {error.strerror or error}",
        hint="choose an address of this machine, for example --otlp 127.0.0.1:4318",
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, receiver: Receiver) -> None:
        self.receiver = receiver
        self._connections = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self.address_family = found[0]
        super().__init__(found[4][:2], _Handler)  # type: ignore[arg-type]

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks the DNS for our name and can hang there.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        """The address it listens on."""
        return ipaddress.ip_address(str(self.server_address[0]))

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._connections.acquire(blocking=False):
            self.receiver.count_refusal("too many connections")
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Count a connection that broke; a traceback in the terminal would help nobody."""
        self.receiver.count_refusal("connection broke")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "perfkit", ""
    timeout = _IDLE_S
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet an answer
    server: _Server

    def do_POST(self) -> None:
        media_type = self.headers.get_content_type()
        try:
            self._take(media_type)
        except _Refused as refusal:
            self.server.receiver.count_refusal(_reason(refusal))
            self.close_connection |= refusal.close
            body = _status_body(media_type, refusal.code, str(refusal))
            self._answer(refusal.status, media_type, body, refusal.headers)
        else:
            # An empty Export…ServiceResponse: everything was taken.
            self._answer(HTTPStatus.OK, media_type, b"{}" if media_type == _JSON else b"", {})

    def do_GET(self) -> None:
        known = self.path.partition("?")[0] in _PATHS
        status = HTTPStatus.METHOD_NOT_ALLOWED if known else HTTPStatus.NOT_FOUND
        text = b"perfkit receives OTLP: POST /v1/traces, /v1/metrics\n"
        self._answer(status, "text/plain", text, {"Allow": "POST"} if known else {})

    def _take(self, media_type: str) -> None:
        # The body is read first: an answer to an unread body would break the connection.
        body = self._read_body()
        signal = _PATHS.get(self.path.partition("?")[0].rstrip("/"))
        if signal is None:
            paths = "/v1/traces or /v1/metrics"
            raise _Refused(HTTPStatus.NOT_FOUND, _INVALID_ARGUMENT, f"send to {paths}")
        if media_type not in (_PROTOBUF, _JSON):
            raise _unsupported(f"send {_PROTOBUF} or {_JSON}")
        encoding = self.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip"):
            raise _unsupported("send it plain or with gzip", Accept_Encoding="gzip")
        self.server.receiver.take(signal, media_type, body, encoding == "gzip")

    def _read_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return self._read_chunks()
        length_text = self.headers.get("Content-Length")
        if length_text is None:
            status = HTTPStatus.LENGTH_REQUIRED
            raise _Refused(status, _INVALID_ARGUMENT, "no Content-Length", close=True)
        if not (length_text.isascii() and length_text.isdigit()):
            raise _bad_request("Content-Length is not a number", close=True)
        length = int(length_text[:20])
        if length > MAX_BODY_BYTES:
            raise _too_large(f"a body may have {MAX_BODY_BYTES} bytes", close=True)
        body = self.rfile.read(length)
        if len(body) < length:
            raise _bad_request("the body is cut off", close=True)
        return body

    def _read_chunks(self) -> bytes:
        parts: list[bytes] = []
        left = MAX_BODY_BYTES
        while True:
            size_text = self.rfile.readline(100).partition(b";")[0].strip()
            try:
                size = int(size_text, 16)
            except ValueError:
                raise _bad_request("damaged chunk", close=True) from None
            left -= size
            if size < 0 or left < 0:
                raise _too_large(f"a body may have {MAX_BODY_BYTES} bytes", close=True)
            if size == 0:
                break
            part = self.rfile.read(size)
            if len(part) < size or self.rfile.read(2) != b"\r\n":
                raise _bad_request("the body is cut off", close=True)
            parts.append(part)
        while self.rfile.readline(1000).strip():  # trailers
            pass
        return b"".join(parts)

    def _answer(
        self, status: HTTPStatus, media_type: str, body: bytes, headers: Mapping[str, str]
    ) -> None:
        self.send_response(status)
        if media_type not in (_PROTOBUF, _JSON, "text/plain"):
            media_type = _JSON
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: refusals are counted, and the terminal belongs to the live line."""


def _unsupported(message: str, **headers: str) -> _Refused:
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    return _Refused(status, _INVALID_ARGUMENT, message, **headers)  # type: ignore[arg-type]


def _reason(refusal: _Refused) -> str:
    return f"{refusal.status.value} {refusal.status.phrase}: {str(refusal)[:100]}"


def _status_body(media_type: str, code: int, message: str) -> bytes:
    """Encode a google.rpc.Status {1: code, 2: message} in the request's encoding."""
    if media_type != _PROTOBUF:
        return json.dumps({"code": code, "message": message}).encode()
    text = message.encode("utf-8", "replace")[:1000]
    length = len(text)
    size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    return b"\x08" + bytes([code]) + b"\x12" + size + text
