"""Requests of HTTP/1.1 as they come in over a connection, and how they are answered.

https://www.rfc-editor.org/rfc/rfc9112
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from types import MappingProxyType
from typing import NamedTuple, Protocol

import httptools

_MAX_HEAD_BYTES = 64 << 10
_MAX_HEADERS = 100
_MAX_WAITING = 256
"""Requests that a client sends without waiting for an answer."""
_PIECES = 1000
"""Of a body: more of them would take many times the memory of what is in them."""
_OTHER_PROTOCOLS = ("upgrade", "http2-settings")

# What people point at a port that speaks neither.
_MISTAKEN = {
    b"PRI * HTTP/2": "this is HTTP/2, which gRPC uses: record with --otlp-grpc",
    b"\x16\x03": "this is TLS: send it to http://, not https://",
}


@dataclass
class Request:
    """A request; the names of its headers are in lower case."""

    method: str = ""
    target: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    keep_alive: bool = False
    refusal: Answer | None = None
    """Why it is not served, if so: then it is not whole, and nothing comes after it."""

    @property
    def chunked(self) -> bool:
        """Whether its body comes in pieces, each with its length."""
        return "chunked" in self.headers.get("transfer-encoding", "").lower()


class Answer(NamedTuple):
    """What is answered; with `close` the connection ends with it."""

    status: HTTPStatus
    body: bytes = b""
    headers: Mapping[str, str] = MappingProxyType({})
    close: bool = False

    def encode(self) -> bytes:
        """Return it as it is sent."""
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            f"Date: {formatdate(usegmt=True)}",
            f"Content-Length: {len(self.body)}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        if self.close:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + self.body


class Handler(Protocol):
    """What serves requests."""

    max_body_bytes: int

    def admit(self, request: Request) -> Answer | None:
        """Look at a request before its body comes; an answer refuses it, and is the last."""

    def serve(self, request: Request, reply: Callable[[Answer], None]) -> None:
        """Call `reply` once, now or later, from any thread."""

    def rest(self) -> None:
        """Hear that all that has come for now was given to `serve`."""

    def refuse(self, status: HTTPStatus, why: str, request: Request | None = None) -> Answer:
        """Make the answer to what cannot be served: to a request, if it came so far."""

    def broke(self, error: BaseException | None) -> None:
        """Hear of a connection that broke."""

    def reserve(self, size_bytes: int) -> bool:
        """Whether bodies may take so much more memory."""

    def release(self, size_bytes: int) -> None:
        """Hear that they do no longer."""


class Incoming:
    """Makes requests of what comes in over a connection."""

    def __init__(self, handler: Handler) -> None:
        self.requests: deque[Request] = deque()
        """Those that are whole or refused, and not served yet."""
        self._handler = handler
        self._parser = httptools.HttpRequestParser(self)
        self._request: Request | None = None
        self._in_body = False
        self._parts: list[bytes | bytearray] = []
        self._size_bytes = 0
        self._headers = self._head_bytes = 0
        self._idle_bytes = 0
        """What came since the last byte of a body: a head, or trailers, without end."""
        self._began = self._refused = self._asks_to_go_on = False

    @property
    def partial(self) -> Request | None:
        """The request that has begun and is not whole."""
        return self._request

    def asks_to_go_on(self) -> bool:
        """Whether the client waits for a word before it sends the body; says so once."""
        asks, self._asks_to_go_on = self._asks_to_go_on, False
        return asks and self.partial is not None and not (self.requests or self._size_bytes)

    def feed(self, data: memoryview) -> None:
        """Take what came."""
        if not self._began:
            self._began = True
            self._look_for_mistakes(bytes(data[:16]))
        request, size_bytes = self._request, self._size_bytes
        pieces = [data]
        while pieces and not self._refused:
            piece = pieces.pop()
            try:
                self._parser.feed_data(piece)
            except httptools.HttpParserUpgrade as upgrade:
                pieces += [piece[upgrade.args[0] :], memoryview(self._head_without_upgrade())]
            except httptools.HttpParserError as error:
                self._refuse(HTTPStatus.BAD_REQUEST, f"not HTTP/1.1: {error}")
        if request is not None and request is self._request and size_bytes == self._size_bytes:
            self._idle_bytes += len(data)
            self._bound_head(self._idle_bytes)

    def stop(self, status: HTTPStatus, why: str) -> None:
        """Refuse what is not whole."""
        if self.partial is not None:
            self._refuse(status, why)

    def release(self) -> None:
        """Give back the memory of all that was not served."""
        self._handler.release(sum(len(each.body) for each in self.requests))
        self.requests.clear()
        self._forget()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._request = Request()
        self._in_body = False
        self._head_bytes = self._idle_bytes = self._headers = 0
        if len(self.requests) >= _MAX_WAITING:
            self._refuse(HTTPStatus.TOO_MANY_REQUESTS, "too many requests at once")

    def on_url(self, url: bytes) -> None:
        """Take the target, or more of it."""
        if self._request is not None:
            self._request.target += url.decode("latin-1")
            self._bound_head(len(self._request.target))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer."""
        if self._request is not None:
            if not self._in_body:  # what trails a body must not change what it is
                self._keep_header(name.decode("latin-1").lower(), value.decode("latin-1"))
            self._head_bytes += len(name) + len(value)
            self._headers += 1
            self._bound_head(self._head_bytes, self._headers)

    def on_headers_complete(self) -> None:
        """Ask whether it is admitted."""
        request = self._request
        if request is None:
            return
        request.method = self._parser.get_method().decode("ascii")
        if self._parser.should_upgrade():
            return
        self._in_body = True
        refusal = self._handler.admit(request)
        if refusal is not None:
            self._end(refusal)
        else:
            self._asks_to_go_on = "100-continue" in request.headers.get("expect", "").lower()
            self._bound_body(int(request.headers.get("content-length", "0")[:20]))

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self._request is None:
            return
        if not self._handler.reserve(len(body)):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too much at once")
            return
        self._keep_piece(body)
        self._size_bytes += len(body)
        self._idle_bytes = 0
        self._bound_body(self._size_bytes)

    def on_message_complete(self) -> None:
        """Queue it."""
        request = self._request
        if request is None or self._parser.should_upgrade():
            return
        request.body = b"".join(self._parts)
        old = self._parser.get_http_version() == "1.0"  # whose clients mostly read until the end
        request.keep_alive = self._parser.should_keep_alive() and not old
        self.requests.append(request)
        self._size_bytes = 0  # it is the request's now
        self._forget()

    def _head_without_upgrade(self) -> bytes:
        """Return a head without its wish for another protocol, to be parsed once more.

        Nobody has to grant that wish, but the parser believes that it was, and gives no body.
        """
        request, version = self._request, self._parser.get_http_version()
        if request is None:
            return b""
        if request.method == "CONNECT":
            self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "this is no proxy")
            return b""
        headers = {k: v for k, v in request.headers.items() if k not in _OTHER_PROTOCOLS}
        wishes = (one.strip() for one in headers.pop("connection", "").split(","))
        kept = ", ".join(one for one in wishes if one.lower() not in ("", *_OTHER_PROTOCOLS))
        lines = [f"{request.method} {request.target} HTTP/{version}"]
        lines += [f"{name}: {text}" for name, text in headers.items()]
        lines += [f"connection: {kept}"] if kept else []
        self._parser = httptools.HttpRequestParser(self)
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    # Limits.

    def _bound_head(self, size_bytes: int, headers: int = 0) -> None:
        if size_bytes > _MAX_HEAD_BYTES or headers > _MAX_HEADERS:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self._refuse(status, "too many or too long headers")

    def _bound_body(self, size_bytes: int) -> None:
        limit = self._handler.max_body_bytes
        if size_bytes > limit:
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            self._refuse(status, f"a body may have {limit} bytes")

    def _look_for_mistakes(self, beginning: bytes) -> None:
        for what, why in _MISTAKEN.items():
            if beginning.startswith(what):
                self._refuse(HTTPStatus.BAD_REQUEST, why)

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        if not self._refused:
            self._end(self._handler.refuse(status, why, self._request))

    def _end(self, refusal: Answer) -> None:
        self._refused = True
        self.requests.append(Request(refusal=refusal._replace(close=True)))
        self._forget()

    def _forget(self) -> None:
        """Give up what is not whole."""
        self._handler.release(self._size_bytes)
        self._request, self._size_bytes = None, 0
        self._parts.clear()

    def _keep_header(self, name: str, value: str) -> None:
        assert self._request is not None
        headers = self._request.headers
        if name == "connection" and name in headers:
            value = f"{headers[name]}, {value}"
        headers[name] = value

    def _keep_piece(self, body: bytes) -> None:
        if len(self._parts) < _PIECES:
            self._parts.append(body)
            return
        last = self._parts[-1]
        if not isinstance(last, bytearray):
            self._parts[-1] = last = bytearray(last)
        last += body
