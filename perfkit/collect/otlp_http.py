"""OTLP over HTTP: traces and metrics, protobuf and JSON, gzip, as the specification says.

https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple

from google.protobuf import json_format

from perfkit.collect.http_request import Answer, Request
from perfkit.collect.intake import (
    INVALID_ARGUMENT,
    JSON,
    LOGS,
    MAX_BODY_BYTES,
    METRICS,
    PROTOBUF,
    RESOURCE_EXHAUSTED,
    TRACES,
    Intake,
    Refused,
    Signal,
    Taken,
    answer,
    try_again,
)

_PATHS = {"/v1/traces": TRACES, "/v1/metrics": METRICS, "/v1/logs": LOGS}


class _Form(NamedTuple):
    """In which form a request came, which is that of its answer."""

    signal: Signal
    media_type: str
    gzipped: bool


class OtlpHandler:
    """Serves OTLP over HTTP into an intake."""

    max_body_bytes = MAX_BODY_BYTES

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def admit(self, request: Request) -> Answer | None:
        """Refuse strangers, and bodies without an end; see `http_request.Handler`."""
        try:
            self._intake.authorise(request.headers.get("authorization"))
            if request.method == "POST" and not (
                "content-length" in request.headers or request.chunked
            ):
                raise Refused(HTTPStatus.LENGTH_REQUIRED, INVALID_ARGUMENT, "no Content-Length")
        except Refused as refusal:
            return self._refused(refusal, _media_type(request))
        return None

    def serve(self, request: Request, reply: Callable[[Answer], None]) -> None:
        """Take a request; see `http_request.Handler`."""
        media_type = _media_type(request)
        if request.method != "POST":
            reply(_usage(request))
            return
        try:
            form = _form(request)
        except Refused as refusal:
            reply(self._refused(refusal, media_type))
            return

        def done(outcome: Taken | Refused) -> None:
            if isinstance(outcome, Refused):
                reply(self._refused(outcome, media_type))
            else:
                reply(_taken(form, outcome))

        signal, media_type, gzipped = form
        self._intake.submit(signal, media_type, request.body, done, gzipped=gzipped)

    def rest(self) -> None:
        """Let the disk work; see `http_request.Handler`."""
        self._intake.flush()

    def refuse(self, status: HTTPStatus, why: str, request: Request | None = None) -> Answer:
        """Count what cannot be served, and say so; see `http_request.Handler`."""
        busy = status == HTTPStatus.SERVICE_UNAVAILABLE
        refusal = try_again(why) if busy else Refused(status, _code(status), why)
        return self._refused(refusal, _media_type(request) if request else JSON)

    def broke(self, error: BaseException | None) -> None:
        """Count a connection that broke; a traceback in the terminal would help nobody."""
        del error
        self._intake.count(self._intake.refused, "connection broke")

    def reserve(self, size_bytes: int) -> bool:
        """Take memory for bodies; see `http_request.Handler`."""
        return self._intake.reserve(size_bytes)

    def release(self, size_bytes: int) -> None:
        """Give it back."""
        self._intake.release(size_bytes)

    def _refused(self, refusal: Refused, media_type: str) -> Answer:
        self._intake.refuse(refusal)
        if media_type != PROTOBUF:
            media_type = JSON
        body = _status_body(media_type, refusal.code, str(refusal))
        return Answer(refusal.status, body, {"Content-Type": media_type, **refusal.headers})


def _code(status: HTTPStatus) -> int:
    too_large = status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return RESOURCE_EXHAUSTED if too_large else INVALID_ARGUMENT


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _path(request: Request) -> str:
    return request.target.partition("?")[0].rstrip("/")


def _form(request: Request) -> _Form:
    """Say what a request is. Raises Refused."""
    signal = _PATHS.get(_path(request))
    if signal is None:
        paths = "/v1/traces or /v1/metrics"
        raise Refused(HTTPStatus.NOT_FOUND, INVALID_ARGUMENT, f"send to {paths}")
    media_type = _media_type(request)
    if media_type not in (PROTOBUF, JSON):
        raise _unsupported(f"send {PROTOBUF} or {JSON}")
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip"):
        raise _unsupported("send it plain or with gzip", Accept_Encoding="gzip")
    return _Form(signal, media_type, encoding == "gzip")


def _usage(request: Request) -> Answer:
    known = _path(request) in _PATHS
    status = HTTPStatus.METHOD_NOT_ALLOWED if known else HTTPStatus.NOT_FOUND
    text = b"perfkit receives OTLP: POST /v1/traces, /v1/metrics\n"
    if request.method == "HEAD":
        text = b""
    return Answer(
        status, text, {"Content-Type": "text/plain", **({"Allow": "POST"} if known else {})}
    )


def _unsupported(message: str, **headers: str) -> Refused:
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    return Refused(status, INVALID_ARGUMENT, message, **headers)


def _taken(form: _Form, taken: Taken) -> Answer:
    """Answer a request that was taken, or most of it."""
    body = b"{}" if form.media_type == JSON else b""  # an empty message
    if taken.rejected:
        message = answer(form.signal, taken)
        if form.media_type == JSON:
            body = json_format.MessageToJson(message, indent=None).encode()
        else:
            body = bytes(message.SerializeToString())
    return Answer(HTTPStatus.OK, body, {"Content-Type": form.media_type})


def _status_body(media_type: str, code: int, message: str) -> bytes:
    """Encode a google.rpc.Status {1: code, 2: message} in the request's encoding."""
    if media_type != PROTOBUF:
        return json.dumps({"code": code, "message": message}).encode()
    text = message[:250].encode("utf-8", "replace")  # whole characters, 1,000 bytes at most
    length = len(text)
    size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    return b"\x08" + bytes([code]) + b"\x12" + size + text
