"""Whatever is sent: the receiver answers well or refuses, goes on, and what it took can be read."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import json_format
from hypothesis import example, given
from hypothesis import strategies as st

from perfkit.bodies import decode
from perfkit.collect.otlp_http import OtlpHandler
from tests.collect.otlp_bench import JSON, PROTOBUF, Bench, metrics, traces
from tests.importers.test_hostile import changed

PATHS = ("/v1/traces", "/v1/metrics")
REFUSALS = {400, 404, 405, 408, 411, 413, 414, 415, 431, 501, 505}
BODIES = {
    ("/v1/traces", PROTOBUF): traces().SerializeToString(),
    ("/v1/metrics", PROTOBUF): metrics().SerializeToString(),
    ("/v1/traces", JSON): json_format.MessageToJson(traces(), indent=None).encode(),
    ("/v1/metrics", JSON): json_format.MessageToJson(metrics(), indent=None).encode(),
}


class Hostile(Bench):
    """A receiver whose handlers' errors are kept, and which is asked whether it still works."""

    def send(self, path: str, body: bytes, media_type: str, **headers: str) -> int:
        response, _ = self.post(path, body, media_type, **headers)
        assert response.status == 200 or response.status in REFUSALS
        return response.status

    def works(self) -> None:
        self.connection.close()
        for (path, media_type), body in BODIES.items():
            assert self.send(path, body, media_type) == 200


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    errors: list[BaseException | None] = []

    def note(handler: OtlpHandler, error: BaseException | None) -> None:
        if not isinstance(error, OSError):  # a client that went away
            errors.append(error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OtlpHandler, "broke", note)
        bench = Hostile(tmp_path_factory.mktemp("hostile"))
        yield bench
        bench.works()
        records = bench.close()
    assert errors == []
    assert len(records) > 4
    for record in records:  # as the compactor will
        decode(record)


@pytest.mark.parametrize(("path", "media_type"), BODIES)
@pytest.mark.parametrize("packed", [False, True])
def test_a_body_that_is_cut_off_at_every_byte(
    hostile: Hostile, path: str, media_type: str, packed: bool
) -> None:
    body = BODIES[path, media_type]
    body, headers = (gzip.compress(body), {"Content_Encoding": "gzip"}) if packed else (body, {})
    answers = [hostile.send(path, body[:end], media_type, **headers) for end in range(len(body))]
    # An empty body is an empty request; protobuf can end at the end of any field. JSON cannot.
    if media_type == JSON and not packed:
        assert set(answers[1:]) == {400}
    if packed:
        assert set(answers[1:]) <= {400, 200}
        assert answers.count(200) <= 1
    assert hostile.send(path, body, media_type, **headers) == 200


@given(data=st.data())
def test_a_body_that_is_damaged(hostile: Hostile, data: st.DataObject) -> None:
    (path, media_type), body = data.draw(st.sampled_from(sorted(BODIES.items())))
    content = bytearray(gzip.compress(body) if data.draw(st.booleans()) else body)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[at] = data.draw(st.integers(0, 255))
        else:
            content[at:at] = data.draw(st.binary(min_size=1, max_size=8))
    headers = data.draw(st.sampled_from([{}, {"Content_Encoding": "gzip"}]))
    hostile.send(data.draw(st.sampled_from([path, *PATHS])), bytes(content), media_type, **headers)


@given(data=st.data())
def test_json_of_wrong_types_and_nesting(hostile: Hostile, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(PATHS))
    document = data.draw(changed(json.loads(BODIES[path, JSON])))
    hostile.send(path, json.dumps(document).encode(), JSON)


@given(body=st.binary(max_size=200))
@example(body=b"[" * 100_000)
@example(body=b'{"resourceSpans":' * 50_000)
@example(body=b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[{"value":'
         + b'{"arrayValue":{"values":[' * 20_000)  # fmt: skip
@example(body=b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
@example(body=b'{"resourceSpans": [], "resourceSpans": [{}]}')
@example(body=b"\xff\xfe{\x00}\x00")
def test_anything_at_all(hostile: Hostile, body: bytes) -> None:
    for path in PATHS:
        for media_type in (PROTOBUF, JSON, "text/plain"):
            for headers in ({}, {"Content_Encoding": "gzip"}, {"Content_Encoding": "br"}):
                hostile.send(path, body, media_type, **headers)


TOKENS = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30).map(
    lambda text: text.encode("latin-1")
)


@given(
    method=st.sampled_from([b"POST", b"GET", b"PUT", b"", b"PRI * HTTP/2.0"]),
    path=st.one_of(st.sampled_from([b"/v1/traces", b"/v1/traces/", b"//", b"*", b"/../etc"]),
                   TOKENS),
    headers=st.lists(
        st.tuples(
            st.sampled_from(
                [b"Content-Type", b"Content-Length", b"Content-Encoding", b"Transfer-Encoding",
                 b"Authorization", b"Connection", b"Expect"]
            ),
            st.one_of(
                st.sampled_from([b"-1", b"0", b"99999999999999999999", b"1e3", b"chunked", b"gzip",
                                 b"application/json", b"application/x-protobuf; charset=x",
                                 b"100-continue", b"\xb2", b"0x10", b"5, 5"]),
                TOKENS,
            ),
        ),
        max_size=6,
    ),
    body=st.one_of(st.binary(max_size=60),
                   st.sampled_from([b"0\r\n\r\n", b"5\r\nab", b"-5\r\n", b"ffffffffff\r\n",
                                    b"5;x=y\r\nabcde\r\n0\r\nTrailer: x\r\n\r\n"])),
)  # fmt: skip
def test_requests_of_any_form(
    hostile: Hostile, method: bytes, path: bytes, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    lines = [method + b" " + path + b" HTTP/1.1", *(b"%s: %s" % pair for pair in headers)]
    with contextlib.suppress(ConnectionError):
        answer = hostile.raw(b"\r\n".join([*lines, b"Connection: close", b"", body]))
        if answer.startswith(b"HTTP/"):
            assert int(answer.split(b" ", 2)[1]) in {100, 200, *REFUSALS}


def test_headers_that_are_too_many_or_too_long(hostile: Hostile) -> None:
    for extra in ({f"X-{n}": "y" for n in range(300)}, {"X": "y" * 100_000}):
        try:
            hostile.connection.request("POST", "/v1/traces", b"", extra)
            assert hostile.connection.getresponse().status == 431
        except (ConnectionError, http.client.HTTPException):
            pass
        hostile.connection.close()
    hostile.works()


def test_a_gzip_bomb_is_refused(hostile: Hostile, tmp_path: Path) -> None:
    del tmp_path
    bomb = gzip.compress(bytes(300 << 20), 1)
    assert hostile.send("/v1/traces", bomb, PROTOBUF, Content_Encoding="gzip") in {400, 413}
