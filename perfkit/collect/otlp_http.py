"""OTLP over HTTP: traces and metrics, protobuf and JSON, gzip, as the specification says.

https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import struct
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf import json_format

from perfkit.collect.intake import (
    INVALID_ARGUMENT,
    JSON,
    LOGS,
    MAX_BODY_BYTES,
    METRICS,
    PROTOBUF,
    RETRY_AFTER_S,
    TRACES,
    Intake,
    Refused,
    Signal,
    Taken,
    answer,
    too_large,
)

_MAX_CONNECTIONS = 256
_IDLE_S = 120.0
_PATHS = {"/v1/traces": TRACES, "/v1/metrics": METRICS, "/v1/logs": LOGS}
_BUSY = (
    f"HTTP/1.1 503 Service Unavailable\r\nRetry-After: {RETRY_AFTER_S}\r\n"
    "Content-Length: 0\r\nConnection: close\r\n\r\n"
).encode()


def _bad_request(message: str, *, close: bool = False) -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, INVALID_ARGUMENT, message, close=close)


class HttpServer:
    """Serves until it is closed."""

    def __init__(self, address: tuple[str, int], intake: Intake) -> None:
        """Bind and begin to serve. Raises OSError."""
        self._server = _Server(*address, intake)
        self.port: int = self._server.server_address[1]
        self.ip = ipaddress.ip_address(str(self._server.server_address[0]))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="otlp", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening. Requests that are being served may still be acknowledged."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, intake: Intake) -> None:
        self.intake = intake
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

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._connections.acquire(blocking=False):
            self.intake.count(self.intake.postponed, "too many connections")
            with contextlib.suppress(OSError):
                request.sendall(_BUSY)
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
        self.intake.count(self.intake.refused, "connection broke")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "perfkit", ""
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet an answer
    server: _Server

    def setup(self) -> None:
        # The kernel's time limits: for those of Python each reading would ask twice, and let other
        # threads run twice.
        limit = struct.pack("ll", int(_IDLE_S), int(_IDLE_S % 1 * 1e6))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self.request.setsockopt(socket.SOL_SOCKET, option, limit)
        super().setup()

    def do_POST(self) -> None:
        media_type = self.headers.get_content_type()
        try:
            signal, taken = self._take(media_type)
        except Refused as refusal:
            self.server.intake.refuse(refusal)
            self.close_connection |= refusal.close
            body = _status_body(media_type, refusal.code, str(refusal))
            self._answer(refusal.status, media_type, body, refusal.headers)
        else:
            body = _success_body(media_type, signal, taken)
            self._answer(HTTPStatus.OK, media_type, body, {})

    def do_GET(self) -> None:
        known = self.path.partition("?")[0] in _PATHS
        status = HTTPStatus.METHOD_NOT_ALLOWED if known else HTTPStatus.NOT_FOUND
        text = b"perfkit receives OTLP: POST /v1/traces, /v1/metrics\n"
        self._answer(status, "text/plain", text, {"Allow": "POST"} if known else {})

    def _take(self, media_type: str) -> tuple[Signal, Taken]:
        # The body is read first: an answer to an unread body would break the connection. But not
        # for a stranger.
        self._authorise()
        body = self._read_body()
        signal = _PATHS.get(self.path.partition("?")[0].rstrip("/"))
        if signal is None:
            paths = "/v1/traces or /v1/metrics"
            raise Refused(HTTPStatus.NOT_FOUND, INVALID_ARGUMENT, f"send to {paths}")
        if media_type not in (PROTOBUF, JSON):
            raise _unsupported(f"send {PROTOBUF} or {JSON}")
        encoding = self.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip"):
            raise _unsupported("send it plain or with gzip", Accept_Encoding="gzip")
        gzipped = encoding == "gzip"
        return signal, self.server.intake.take(signal, media_type, body, gzipped=gzipped)

    def _authorise(self) -> None:
        try:
            self.server.intake.authorise(self.headers.get("Authorization"))
        except Refused as refusal:
            refusal.close = True
            raise

    def _read_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return self._read_chunks()
        length_text = self.headers.get("Content-Length")
        if length_text is None:
            status = HTTPStatus.LENGTH_REQUIRED
            raise Refused(status, INVALID_ARGUMENT, "no Content-Length", close=True)
        if not (length_text.isascii() and length_text.isdigit()):
            raise _bad_request("Content-Length is not a number", close=True)
        length = int(length_text[:20])
        if length > MAX_BODY_BYTES:
            raise too_large(f"a body may have {MAX_BODY_BYTES} bytes", close=True)
        body = self.rfile.read(length) or b""  # null, not empty, when the time is over
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
                raise too_large(f"a body may have {MAX_BODY_BYTES} bytes", close=True)
            if size == 0:
                break
            part = self.rfile.read(size) or b""
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
        if media_type not in (PROTOBUF, JSON, "text/plain"):
            media_type = JSON
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


def _unsupported(message: str, **headers: str) -> Refused:
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    return Refused(status, INVALID_ARGUMENT, message, **headers)  # type: ignore[arg-type]


def _success_body(media_type: str, signal: Signal, taken: Taken) -> bytes:
    """Encode the answer to a request that was taken, or most of it."""
    if not taken.rejected:  # an empty message
        return b"{}" if media_type == JSON else b""
    message = answer(signal, taken)
    if media_type == JSON:
        return json_format.MessageToJson(message, indent=None).encode()
    return bytes(message.SerializeToString())


def _status_body(media_type: str, code: int, message: str) -> bytes:
    """Encode a google.rpc.Status {1: code, 2: message} in the request's encoding."""
    if media_type != PROTOBUF:
        return json.dumps({"code": code, "message": message}).encode()
    text = message.encode("utf-8", "replace")[:1000]
    length = len(text)
    size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    return b"\x08" + bytes([code]) + b"\x12" + size + text
