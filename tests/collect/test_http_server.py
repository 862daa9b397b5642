"""The server of OTLP over HTTP, as clients of every kind use it: over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perfkit.batch import Batch
from perfkit.collect import http_request, http_server, intake
from perfkit.collect.intake import TRACES
from perfkit.collect.otlp_http import OtlpHandler
from tests.collect.otlp_bench import JSON, PROTOBUF, Bench, traces

GOOD = traces().SerializeToString()
HEAD = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\n"
REQUEST = f"{HEAD}Content-Length: {len(GOOD)}\r\n\r\n".encode() + GOOD


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


@contextlib.contextmanager
def client(bench: Bench) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", bench.port), timeout=20) as connected:
        yield connected


def until_closed(connected: socket.socket) -> bytes:
    got = b""
    while part := connected.recv(1 << 16):
        got += part
    return got


def send_for_ever(connected: socket.socket, what: bytes) -> None:
    for _ in range(1000):
        connected.sendall(what)


def statuses(answers: bytes) -> list[int]:
    return [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]


def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(2000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it never held")


def test_requests_that_do_not_wait_for_answers_are_answered_in_their_order(bench: Bench) -> None:
    wrong = b"GET /v1/traces HTTP/1.1\r\nHost: x\r\n\r\n"
    bad = f"{HEAD}Content-Length: 3\r\n\r\n".encode() + b"\xff\xff\xff"
    answers = bench.raw((REQUEST + wrong + bad) * 80 + b"nonsense\r\n\r\n" + REQUEST)
    assert statuses(answers) == [200, 405, 400] * 80 + [400]
    assert len(bench.close()) == 80


def test_what_comes_byte_by_byte(bench: Bench) -> None:
    with client(bench) as slow:
        slow.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in REQUEST + REQUEST:
            slow.send(bytes([byte]))
        slow.shutdown(socket.SHUT_WR)
        assert statuses(until_closed(slow)) == [200, 200]


def test_the_connection_is_kept_unless_it_is_not_wanted(bench: Bench) -> None:
    with client(bench) as kept:
        for _ in range(3):
            kept.sendall(REQUEST)
            assert statuses(kept.recv(1 << 16)) == [200]
        kept.sendall(REQUEST.replace(b"Host: x", b"Host: x\r\nConnection: close"))
        answer = until_closed(kept)
    assert statuses(answer) == [200]
    assert b"\r\nConnection: close\r\n" in answer
    for header in (b"", b"\r\nConnection: keep-alive"):
        with client(bench) as old:
            first = REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0").replace(
                b"Host: x", b"Host: x" + header
            )
            old.sendall(first)
            assert statuses(until_closed(old)) == [200]


def test_too_many_requests_at_once_are_refused(bench: Bench) -> None:
    answers = bench.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 8000)
    assert set(statuses(answers)) == {404, 429}
    assert bench.post("/v1/traces", GOOD)[0].status == 200


def test_what_trails_a_body_does_not_change_what_it_is(bench: Bench) -> None:
    head = f"{HEAD}Transfer-Encoding: chunked\r\n\r\n{len(GOOD):x}\r\n".encode()
    trailers = (
        f"Content-Type: {JSON}\r\nContent-Encoding: gzip\r\nAuthorization: x\r\n\r\n".encode()
    )
    assert statuses(bench.raw(head + GOOD + b"\r\n0\r\n" + trailers)) == [200]


def test_a_body_in_tiny_chunks(bench: Bench) -> None:
    body = traces()
    body.resource_spans[0].scope_spans[0].spans[0].name = "x" * 20_000
    whole = body.SerializeToString()
    pieces = (whole[at : at + 2] for at in range(0, len(whole), 2))
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    head = f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode()
    assert statuses(bench.raw(head + chunks + b"0\r\n\r\n")) == [200]
    assert [record.body for record in bench.close()] == [whole]


def test_tiny_chunks_take_no_object_each(bench: Bench) -> None:
    incoming = http_request.Incoming(OtlpHandler(bench.intake))
    head = f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode()
    incoming.feed(memoryview(head + b"2\r\nab\r\n" * 50_000))
    assert bench.intake.reserved_bytes == 100_000
    assert len(incoming._parts) == http_request._PIECES
    incoming.release()
    assert incoming._parts == []
    assert bench.intake.reserved_bytes == 0


def test_chunks_whose_framing_comes_by_itself(bench: Bench) -> None:
    whole = bytes(100_000)
    with client(bench) as slow:
        slow.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        slow.sendall(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
        for at in range(0, len(whole), 5000):
            for part in (b"1388;" + b"x" * 5000 + b"\r\n", whole[at : at + 5000], b"\r\n"):
                slow.sendall(part)
                time.sleep(0.001)
        slow.sendall(b"0\r\n\r\n")
        assert statuses(slow.recv(1 << 16)) == [400]  # no spans, but a whole request


def test_who_asks_whether_to_go_on_is_told(bench: Bench) -> None:
    head = f"{HEAD}Expect: 100-continue\r\nContent-Length: {len(GOOD)}\r\n\r\n".encode()
    with client(bench) as patient:
        patient.sendall(head[:-4])
        time.sleep(0.05)
        patient.sendall(head[-4:])
        assert patient.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        patient.sendall(GOOD)
        assert statuses(patient.recv(1 << 16)) == [200]
    bench.connection.close()
    with client(bench) as patient:  # also after an answer
        patient.sendall(REQUEST + head)
        answers = b""
        while b"100 Continue" not in answers:
            answers += patient.recv(1 << 16)
        patient.sendall(GOOD)
        assert statuses(answers + patient.recv(1 << 16)) == [200, 100, 200]
    with client(bench) as patient:  # and is spared to send what would be refused
        patient.sendall(head.replace(b"Content-Length: ", b"Content-Length: 9999999"))
        assert statuses(until_closed(patient)) == [413]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_wish_for_another_protocol_is_not_granted(bench: Bench, chunked: bool) -> None:
    # As Java's HttpClient asks for HTTP/2.
    wish = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    request = f"{HEAD}{wish}Content-Length: {len(GOOD)}\r\n\r\n".encode() + GOOD
    if chunked:
        head = f"{HEAD}{wish}Transfer-Encoding: chunked\r\n\r\n{len(GOOD):x}\r\n"
        request = head.encode() + GOOD + b"\r\n0\r\n\r\n"
    with client(bench) as java:
        java.sendall(request + REQUEST + request)
        java.shutdown(socket.SHUT_WR)
        assert statuses(until_closed(java)) == [200, 200, 200]
    assert [record.body for record in bench.close()] == [GOOD] * 3


@pytest.mark.parametrize("connection", ["Upgrade, Close", "close\r\nConnection: Upgrade"])
def test_a_wish_to_close_is_kept_beside_one_for_another_protocol(
    bench: Bench, connection: str
) -> None:
    head = f"{HEAD}Connection: {connection}\r\nUpgrade: h2c\r\n"
    with client(bench) as java:
        java.sendall(f"{head}Content-Length: {len(GOOD)}\r\n\r\n".encode() + GOOD)
        assert statuses(until_closed(java)) == [200]


def test_a_proxy_is_refused(bench: Bench) -> None:
    assert statuses(bench.raw(b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n" + REQUEST)) == [405]


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(30), "which gRPC uses"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), "not https://"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "not HTTP/1.1"),
    ],
)
def test_who_speaks_another_protocol_is_counted_with_what_to_do(
    bench: Bench, sent: bytes, why: str
) -> None:
    answer = bench.raw(sent)
    assert statuses(answer) == [400]
    assert why.encode() in answer
    [reason] = bench.intake.refused
    assert why in reason


@pytest.mark.parametrize(
    "sent",
    [
        HEAD.encode() + b"X: " + b"y" * 2_000_000,
        HEAD.encode() + b"X" * 2_000_000,
        HEAD.encode() + b"".join(b"X-%d: y\r\n" % number for number in range(200)),
        b"POST /" + b"x" * 2_000_000,
        f"{HEAD}Transfer-Encoding: chunked\r\n\r\n0\r\nX: ".encode() + b"y" * 2_000_000,
        f"{HEAD}Transfer-Encoding: chunked\r\n\r\n0\r\n".encode()
        + b"".join(b"X-%d: y\r\n" % number for number in range(200)),
    ],
    ids=["a value", "a name", "many", "a path", "a trailer", "many trailers"],
)
def test_a_head_without_end_is_refused(bench: Bench, sent: bytes) -> None:
    assert statuses(bench.raw(sent)) == [431]
    assert bench.post("/v1/traces", GOOD)[0].status == 200


def test_an_answer_is_not_lost_while_the_client_still_sends(bench: Bench) -> None:
    with client(bench) as sender:
        sender.sendall(f"{HEAD}Content-Length: {1 << 30}\r\n\r\n".encode())
        for _ in range(30):
            sender.sendall(bytes(1 << 20))
        sender.shutdown(socket.SHUT_WR)
        assert statuses(until_closed(sender)) == [413]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", None),
        (REQUEST, 200),
        (b"POST /v1/traces HT", 408),
        (b"POST /v1/traces HTTP/1.1\r\nContent-Le", 408),
        (b"POST /v1/traces HTTP/1.1\r\nContent-Length: 10\r\n\r\n", 408),
        (b"POST /v1/traces HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf", 408),
        (b"POST /v1/traces HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", 408),
    ],
    ids=["nothing", "a request", "a line", "headers", "no body", "a body", "a chunk"],
)
def test_who_falls_silent_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes, status: int | None
) -> None:
    monkeypatch.setattr(http_server, "_IDLE_S", 0.25)
    bench = Bench(tmp_path)
    with client(bench) as silent, contextlib.suppress(ConnectionResetError):
        silent.sendall(sent)
        assert statuses(until_closed(silent)) == ([status] if status else [])
    eventually(lambda: bench.intake.reserved_bytes == 0)
    assert bench.post("/v1/traces", GOOD)[0].status == 200
    assert len(bench.close()) == 1 + (status == 200)


def test_a_disk_that_takes_long_is_not_silence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    held_disk: tuple[threading.Event, threading.Event],
) -> None:
    monkeypatch.setattr(http_server, "_IDLE_S", 0.05)
    asked, go_on = held_disk
    bench = Bench(tmp_path)
    with client(bench) as patient:
        patient.sendall(REQUEST)
        assert asked.wait(20)
        time.sleep(0.3)
        go_on.set()
        assert statuses(patient.recv(1 << 16)) == [200]
    bench.close()


def test_what_is_being_served_when_the_server_closes_is_answered(
    tmp_path: Path, held_disk: tuple[threading.Event, threading.Event]
) -> None:
    asked, go_on = held_disk
    bench = Bench(tmp_path)
    with client(bench) as served, client(bench) as idle, client(bench) as half:
        half.sendall(REQUEST[:-1])
        served.sendall(REQUEST)
        assert asked.wait(20)
        closing = threading.Thread(target=bench.receiver.close)
        closing.start()
        assert until_closed(idle) == b""
        assert closing.is_alive()
        go_on.set()
        assert statuses(until_closed(served)) == [200]
        with contextlib.suppress(ConnectionResetError):
            assert until_closed(half) == b""
        closing.join()
        with pytest.raises(ConnectionError), client(bench):
            pass
    assert len(bench.close()) == 1


def test_who_goes_away_while_it_is_served_costs_nothing(
    bench: Bench, held_disk: tuple[threading.Event, threading.Event]
) -> None:
    asked, go_on = held_disk
    with client(bench) as gone:
        gone.sendall(REQUEST)
        assert asked.wait(20)
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
    time.sleep(0.1)
    assert bench.intake.reserved_bytes == len(GOOD)  # it is still in memory
    go_on.set()
    eventually(lambda: bench.intake.reserved_bytes == 0)
    assert bench.post("/v1/traces", GOOD)[0].status == 200
    assert len(bench.close()) == 2


def test_who_breaks_off_leaves_nothing(bench: Bench) -> None:
    with client(bench) as gone:
        gone.sendall(f"{HEAD}Content-Length: {1 << 20}\r\n\r\n".encode() + bytes(1000))
        eventually(lambda: bench.intake.reserved_bytes == 1000)
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    eventually(lambda: bench.intake.reserved_bytes == 0)


def test_who_sends_a_request_for_ever_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "_REQUEST_S", 0.3)
    monkeypatch.setattr(http_server, "_IDLE_S", 0.2)
    bench = Bench(tmp_path)
    with client(bench) as slow, contextlib.suppress(ConnectionError):
        slow.sendall(f"{HEAD}Content-Length: 1000000\r\n\r\n".encode())
        slow.settimeout(0.02)
        answer = b""
        for _ in range(500):
            slow.send(b"x")
            with contextlib.suppress(TimeoutError):
                answer = slow.recv(1000)
                break
    assert statuses(answer) == [408]
    bench.close()


def test_bodies_that_are_still_coming_are_bounded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_MAX_IN_FLIGHT_BYTES", 1 << 20)
    head = f"{HEAD}Content-Length: {10 << 20}\r\n\r\n".encode()
    with client(bench) as slow, client(bench) as other:
        slow.sendall(head + bytes(900 << 10))
        eventually(lambda: bench.intake.reserved_bytes == 900 << 10)
        other.sendall(head + bytes(900 << 10))
        answer = until_closed(other)
        assert statuses(answer) == [503]
        assert b"\r\nRetry-After: 1\r\n" in answer
        eventually(lambda: bench.intake.reserved_bytes == 900 << 10)
    eventually(lambda: bench.intake.reserved_bytes == 0)
    assert bench.intake.postponed.total() == 1
    assert bench.post("/v1/traces", GOOD)[0].status == 200


def test_who_does_not_read_its_answers_is_not_read_any_more(bench: Bench) -> None:
    asks = (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 1200 + b"\r\n\r\n") * 100
    with client(bench) as deaf:
        deaf.settimeout(1)
        with pytest.raises(TimeoutError):
            send_for_ever(deaf, asks)
        assert bench.post("/v1/traces", GOOD)[0].status == 200


def test_what_takes_long_does_not_hold_up_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on = threading.Event(), threading.Event()
    decoders = dict(TRACES.decoders)

    def slowly(body: bytes) -> Batch:
        asked.set()
        go_on.wait(20)
        return decoders[JSON](body)

    monkeypatch.setitem(TRACES.__dict__, "decoders", {**decoders, JSON: slowly})
    other = http.client.HTTPConnection("127.0.0.1", bench.port, timeout=20)
    other.request("POST", "/v1/traces", b"{}", {"Content-Type": JSON})
    assert asked.wait(20)
    assert bench.post("/v1/traces", GOOD)[0].status == 200
    go_on.set()
    assert other.getresponse().status == 200


def test_a_server_does_not_wait_for_ever_for_what_it_serves(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    held_disk: tuple[threading.Event, threading.Event],
) -> None:
    monkeypatch.setattr(http_server, "_CLOSE_S", 0.1)
    asked, go_on = held_disk
    bench = Bench(tmp_path)
    with client(bench) as served:
        served.sendall(REQUEST)
        assert asked.wait(20)
        bench.receiver.close()
        with contextlib.suppress(ConnectionResetError):
            assert until_closed(served) == b""
    go_on.set()
    assert len(bench.close()) == 1


@pytest.mark.parametrize("media_type", [PROTOBUF, JSON])
def test_a_bug_in_a_check_is_answered_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, media_type: str
) -> None:
    def fail(*_: object) -> None:
        raise RecursionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(bench.intake, "_check", fail)
        response, answer = bench.post("/v1/traces", GOOD, media_type)
        assert response.status == 500
        assert b"RecursionError" in answer
    assert bench.intake.refused.total() == 1
    assert bench.intake.reserved_bytes == 0
    assert bench.post("/v1/traces", GOOD)[0].status == 200


def test_a_handler_that_fails_is_answered_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(bench.intake, "submit", fail)
        with client(bench) as unlucky:
            unlucky.sendall(REQUEST)
            assert statuses(until_closed(unlucky)) == [500]
    assert bench.intake.refused == {"connection broke": 1}
    assert bench.intake.reserved_bytes == 0
    assert bench.post("/v1/traces", GOOD)[0].status == 200
