from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

from hypothesis import given
from hypothesis import strategies as st

from tests.analysis.build import S, analyse


def call(number: int, url: str | None = None, **attributes: Any) -> S:
    if url is not None:
        attributes["url.full"] = url
    text = json.dumps(attributes) if attributes else None
    return S(number, number, number + 5, 1, kind="client", http_method="GET", attributes=text)


def calls(*spans: S) -> list[dict[str, Any]]:
    root = S(1, 0, 99, kind="server", endpoint="GET /")
    return analyse([root, *spans]).frame("http_calls").to_dicts()


def test_addresses_are_told_apart_by_path_and_names_of_the_query_not_by_ids_and_values() -> None:
    first, second, third, other = calls(
        call(2, "http://s/users/12/orders/7?page=1&size=2"),
        call(3, "http://s/users/13/orders/8?page=2&size=2"),
        call(4, "http://s/users/563712f9722fb0996ac8f3905b40786f/orders/8-turtles?page=2&size="),
        call(5, "http://s/users/me/orders"),
    )
    expected = "http://s/users/{id}/orders/{id}?page=*&size=*"
    assert first["address"] == second["address"] == third["address"] == expected
    assert first["url_hash"] != second["url_hash"]
    assert other["address"] == "http://s/users/me/orders"
    (numbered,) = calls(call(2, "http://127.0.0.1:8080/17?x"))
    assert numbered["address"] == "http://127.0.0.1:8080/{id}?x"
    (bare,) = calls(call(2, "https://10.0.0.1"))
    assert bare["address"] == "https://10.0.0.1"


def test_a_port_that_the_kernel_gave_out_is_no_part_of_the_address() -> None:
    one, other, sixth, named, chosen, service = calls(
        call(2, "http://127.0.0.1:39467/stock/3"),
        call(3, "http://127.0.0.1:32768/stock/4"),
        call(4, "http://[::1]:65535"),
        call(5, "http://localhost:45001/?x=1"),
        call(6, "http://127.0.0.1:32767/stock"),
        call(7, "http://stock.example:39467/stock"),
    )
    assert one["address"] == other["address"] == "http://127.0.0.1:{port}/stock/{id}"
    assert one["url_hash"] != other["url_hash"]
    assert sixth["address"] == "http://[::1]:{port}"
    assert named["address"] == "http://localhost:{port}/?x=*"
    assert chosen["address"] == "http://127.0.0.1:32767/stock"
    assert service["address"] == "http://stock.example:39467/stock"


SEGMENTS = st.sampled_from(
    [
        "users",
        "1",
        "2.5",
        "v1",
        "77-x",
        "8ff81d74-606d-4c75-ac5e-cee65cbbc866",
        "a" * 40,
        "cafe",
        "Chart%201",
    ]
)


@given(st.lists(SEGMENTS, max_size=6))
def test_the_address_equals_one_that_is_made_segment_by_segment(segments: list[str]) -> None:
    identifier = re.compile(
        r"\d+([.-].*)?|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16,}|[A-Za-z0-9_-]{32,}"
        r"|.*%[0-9a-f]{2}.*"
    )
    url = "http://host" + "".join(f"/{one}" for one in segments)
    kept = ["{id}" if identifier.fullmatch(one) else one for one in segments]
    (found,) = calls(call(2, url))
    assert found["address"] == "http://host" + "".join(f"/{one}" for one in kept)


@given(st.text(max_size=30), st.integers(0, 2**40))
def test_what_a_value_says_is_not_taken_for_an_attribute(text: str, size: int) -> None:
    hostile = f'{text}","http.response.body.size":1,"x":"'
    (found,) = calls(call(2, "/a", note=hostile, **{"http.response.body.size": size}))
    assert found["response_bytes"] == size
    assert urlsplit(found["address"]).path == "/a"


def test_sizes_encodings_and_versions_are_read_under_their_old_names_too() -> None:
    new, old, neither = calls(
        call(
            2,
            "/a.JSON",
            **{
                "http.response.header.content-length": ["1200"],
                "http.response.header.content-encoding": ["gzip"],
                "network.protocol.version": "1.1",
                "http.request.resend_count": 2,
            },
        ),
        call(3, "/b", **{"http.response_content_length": "50_000", "http.flavor": "2"}),
        call(4, "/c"),
    )
    assert (new["response_bytes"], new["encoding"], new["http_version"]) == (1200, "gzip", "1.1")
    assert (new["resend_count"], new["file"]) == (2, "json")
    assert (old["response_bytes"], old["http_version"], old["file"]) == (50_000, "2", None)
    assert neither["response_bytes"] is neither["encoding"] is neither["resend_count"] is None


def test_a_span_without_attributes_is_known_by_its_name() -> None:
    named = S(2, 1, 2, 1, kind="client", name="GET /items/5?x=1")
    unnamed = S(3, 1, 2, 1, kind="client", name="call billing")
    database = S(4, 1, 2, 1, kind="client", name="GET", db_system="redis")
    (found,) = [one for one in calls(named, unnamed, database) if one["kind"] == "client"]
    assert (found["method"], found["address"]) == ("GET", "/items/{id}?x=*")


def test_how_long_a_request_waited_in_the_browser() -> None:
    (found,) = calls(call(2, "/a", **{"http.request.request_start": 3e-9}))
    assert found["queued_ns"] == 1
