"""Whatever is sent over gRPC: it is answered or ended, counted, and the receiver goes on."""

from __future__ import annotations

import contextlib
import gzip
import logging
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perfkit.bodies import decode
from perfkit.collect import otlp_grpc
from tests.collect.otlp_bench import Bench, metrics, traces

TRACES_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
METRICS_METHOD = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
BODIES = {
    TRACES_METHOD: traces().SerializeToString(),
    METRICS_METHOD: metrics().SerializeToString(),
}
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
STATUS = b"grpc-status"
OK, INVALID = grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT


class Hostile(Bench):
    """A receiver with a channel, and a way past gRPC's own client."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, grpc=True)
        assert self.receiver.grpc is not None
        self.grpc_port = self.receiver.grpc.port
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}")

    def call(self, method: str, body: bytes, **options: object) -> grpc.StatusCode:
        before = self.intake.refused.total()
        call = self.channel.unary_unary(method).future(body, timeout=30, **options)
        code: grpc.StatusCode = call.code()
        assert code != grpc.StatusCode.UNKNOWN, call.details()
        if code != OK:
            self.until(lambda: self.intake.refused.total() > before)
        return code

    def until(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not happened():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def works(self) -> None:
        for method, body in BODIES.items():
            assert self.call(method, body) == OK

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.grpc_port), timeout=20)

    def send_raw(self, content: bytes, until: bytes) -> bytes:
        """Send bytes and return what comes back, as far as it is awaited or all of it."""
        answer = b""
        with self.connect() as client, contextlib.suppress(ConnectionError):
            client.sendall(content)
            while until not in answer and (part := client.recv(65536)):
                answer += part
        return answer

    def close_all(self) -> None:
        self.channel.close()
        for record in self.close():
            decode(record)


@pytest.fixture
def caught() -> Iterator[list[str]]:
    """What gRPC says of errors in our code."""
    found: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: found.append(record.getMessage())
    logger = logging.getLogger("grpc._server")
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)
    assert found == []


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    bench = Hostile(tmp_path_factory.mktemp("hostile"))
    yield bench
    bench.works()
    bench.close_all()


@pytest.fixture
def hostile(shared: Hostile, caught: list[str]) -> Iterator[Hostile]:
    del caught
    yield shared
    shared.works()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(
        ">I", stream
    ) + payload  # fmt: skip


def headers(method: str, *more: tuple[bytes, bytes]) -> bytes:
    """Write headers as HPACK does without compression: https://httpwg.org/specs/rfc7541.html"""
    pairs = (
        *((b":method", b"POST"), (b":scheme", b"http"), (b":path", method.encode())),
        *((b":authority", b"x"), (b"te", b"trailers"), (b"content-type", b"application/grpc")),
        *more,
    )
    return b"".join(
        b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in pairs
    )


def message(body: bytes, *, packed: int = 0, length: int | None = None) -> bytes:
    return struct.pack(">BI", packed, len(body) if length is None else length) + body


def request(payload: bytes, *more: tuple[bytes, bytes], method: str = TRACES_METHOD) -> bytes:
    return (
        PREFACE
        + frame(SETTINGS, 0, 0, b"")
        + frame(HEADERS, END_HEADERS, 1, headers(method, *more))
        + frame(DATA, END_STREAM, 1, payload)
    )


def test_a_request_written_by_hand_is_taken(hostile: Hostile) -> None:
    before = hostile.intake.received["spans"]
    assert b"grpc-status" in hostile.send_raw(request(message(BODIES[TRACES_METHOD])), STATUS)
    packed = message(gzip.compress(BODIES[TRACES_METHOD]), packed=1)
    hostile.send_raw(request(packed, (b"grpc-encoding", b"gzip")), STATUS)
    assert hostile.intake.received["spans"] == before + 4


@settings(deadline=None)
@given(data=st.data())
def test_a_body_that_is_damaged(shared: Hostile, data: st.DataObject) -> None:
    method = data.draw(st.sampled_from(sorted(BODIES)))
    body = bytearray(BODIES[method])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(body) - 1))
        if data.draw(st.booleans()):
            body[at] = data.draw(st.integers(0, 255))
        else:
            body[at:at] = data.draw(st.binary(min_size=1, max_size=8))
    assert shared.call(method, bytes(body[: data.draw(st.integers(0, len(body)))])) in (OK, INVALID)


@settings(deadline=None)
@given(body=st.binary(max_size=200))
@example(body=b"")
@example(body=b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
@example(body=b"\x12\x01" * 50_000)
def test_anything_at_all(shared: Hostile, body: bytes) -> None:
    for method in BODIES:
        assert shared.call(method, body) in (OK, INVALID)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_connections_that_are_damaged(shared: Hostile, data: st.DataObject) -> None:
    packed = data.draw(st.booleans())
    body = BODIES[TRACES_METHOD]
    payload = message(gzip.compress(body) if packed else body, packed=packed)
    content = bytearray(request(payload, *([(b"grpc-encoding", b"gzip")] if packed else [])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    with shared.connect() as client:
        client.sendall(bytes(content[: data.draw(st.integers(0, len(content)))]))
    shared.works()


@pytest.mark.parametrize(
    ("payload", "more"),
    [
        (message(b"not gzip", packed=1), [(b"grpc-encoding", b"gzip")]),
        (message(gzip.compress(b"x" * 100)[:20], packed=1), [(b"grpc-encoding", b"gzip")]),
        (message(BODIES[TRACES_METHOD], packed=1), []),
        (message(b"", packed=1), [(b"grpc-encoding", b"none such")]),
        (message(b"abc", length=1000), []),
        (message(b"", length=2**32 - 1), []),
        (b"\0\0", []),
        (b"", []),
    ],
    # gzip writes the time into what it packs: two workers would not agree on a name.
    ids=["no gzip", "cut", "plain", "unknown", "short", "endless", "half a head", "nothing"],
)
def test_messages_that_are_none_are_counted(
    hostile: Hostile, payload: bytes, more: list[tuple[bytes, bytes]]
) -> None:
    before = hostile.intake.refused.total()
    with hostile.connect() as client:
        client.sendall(request(payload, *more))
        hostile.until(lambda: hostile.intake.refused.total() > before)


@settings(deadline=None, max_examples=30)
@given(
    value=st.binary(max_size=60), name=st.sampled_from([b"authorization", b"x-bin", b"user-agent"])
)
def test_headers_of_any_value(shared: Hostile, name: bytes, value: bytes) -> None:
    with shared.connect() as client:
        client.sendall(request(message(BODIES[TRACES_METHOD]), (name, value)))
        assert client.recv(65536)
    shared.works()


def test_what_is_too_large_is_counted(hostile: Hostile) -> None:
    before = hostile.intake.refused[otlp_grpc.NOT_WHOLE]
    body = b"\x0a\x00" * (11 << 20)
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        code = hostile.call(TRACES_METHOD, body, compression=compression)
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert hostile.intake.refused[otlp_grpc.NOT_WHOLE] == before + 2


@pytest.mark.parametrize("method", ["/a.B/C", TRACES_METHOD + "x", "/x", "//", "/" + "y" * 5000])
def test_other_methods_are_counted(hostile: Hostile, method: str) -> None:
    before = hostile.intake.refused[otlp_grpc.UNKNOWN_METHOD]
    assert hostile.call(method, b"") == grpc.StatusCode.UNIMPLEMENTED
    assert hostile.intake.refused[otlp_grpc.UNKNOWN_METHOD] == before + 1


def test_clients_that_open_calls_and_fall_silent_occupy_no_thread_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caught: list[str]
) -> None:
    del caught
    monkeypatch.setitem(otlp_grpc.GrpcServer.__init__.__kwdefaults__, "patience_s", 0.4)
    bench = Hostile(tmp_path)
    opened = PREFACE + frame(SETTINGS, 0, 0, b"")
    for stream in range(1, 60, 2):
        opened += frame(HEADERS, END_HEADERS, stream, headers(TRACES_METHOD))
    with bench.connect() as silent:
        silent.sendall(opened)
        bench.until(lambda: bench.intake.refused[otlp_grpc.NOT_WHOLE] == 30)
        bench.works()
    bench.close_all()


def test_clients_that_vanish_are_counted(hostile: Hostile) -> None:
    before = hostile.intake.refused[otlp_grpc.NOT_WHOLE]
    content = request(message(BODIES[TRACES_METHOD]))
    for _ in range(20):
        with hostile.connect() as client:
            client.sendall(content[:-20])
    hostile.until(lambda: hostile.intake.refused[otlp_grpc.NOT_WHOLE] == before + 20)
