"""The gateway's endpoints, the steps of a call, and the spans that tell of them."""

from __future__ import annotations

import json

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from perfkit.demo.access import RateLimit
from perfkit.demo.plugins import RedactEmail, ToolCall

from .harness import AGENT, Gateway


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def tree(spans: list[ReadableSpan]) -> set[tuple[str, str]]:
    """Return (name of the parent, name) of every span; a root has the parent ''."""
    names = {span.context.span_id: span.name for span in spans if span.context}
    return {(names[span.parent.span_id] if span.parent else "", span.name) for span in spans}


def test_a_call_is_one_trace_with_a_span_for_each_step(mended: Gateway) -> None:
    mended.call("check-stock", sku="sku-3")
    spans = mended.spans()
    assert len({span.context.trace_id for span in spans if span.context}) == 1
    steps = tree(spans)
    assert {
        ("", "POST /tools/invoke"),
        ("POST /tools/invoke", "authenticate"),
        ("POST /tools/invoke", "check rate limit"),
        ("POST /tools/invoke", "tools/call check-stock"),
        ("tools/call check-stock", "plugins before"),
        ("plugins before", "plugin redact-email"),
        ("tools/call check-stock", "run tool"),
        ("run tool", "connect"),
        ("run tool", "GET"),
        ("tools/call check-stock", "plugins after"),
        ("POST /tools/invoke", "serialize response"),
    } <= steps
    assert any(parent == "run tool" and name.startswith("SELECT") for parent, name in steps)


def test_spans_carry_the_present_conventions(mended: Gateway) -> None:
    mended.call("check-stock", sku="sku-3")
    (call,) = mended.spans("tools/call")
    assert call.kind.name == "SERVER"
    told = attributes(call)
    assert told["mcp.method.name"] == "tools/call"
    assert told["gen_ai.tool.name"] == "check-stock"
    assert told["gen_ai.operation.name"] == "execute_tool"
    assert told["jsonrpc.request.id"] == "7"
    assert json.loads(str(told["gen_ai.tool.call.arguments"])) == {"sku": "sku-3"}
    (server,) = mended.spans("POST /tools/invoke")[:1]
    assert attributes(server)["http.route"] == "/tools/invoke"
    assert attributes(server)["http.request.method"] == "POST"
    (select,) = mended.spans("SELECT")
    assert attributes(select)["db.system.name"] == "sqlite"
    assert "db.query.text" in attributes(select)
    (upstream,) = mended.spans("GET")
    assert attributes(upstream)["http.response.status_code"] == 200
    assert str(attributes(upstream)["url.full"]).endswith("/stock/sku-3")


def test_spans_name_the_thread_that_runs_them(mended: Gateway) -> None:
    mended.call("check-stock", sku="sku-3")
    threads = {span.name: attributes(span)["thread.id"] for span in mended.spans()}
    assert threads["run tool"] == threads["connect"] == threads["GET"]
    assert threads["run tool"] != threads["tools/call check-stock"]
    mended.call("plan-trip", city="Lisbon")
    threads = {span.name: attributes(span)["thread.id"] for span in mended.spans("")}
    assert threads["run tool"] == threads["tools/call plan-trip"]


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"name": "crystal-ball", "arguments": {}}, -32602),
        ({"name": "weather", "arguments": {}}, -32602),
        ({"name": "weather", "arguments": {"city": 3}}, -32602),
        ({"name": "weather", "arguments": ["Quito"]}, -32602),
        ({"name": "list-orders", "arguments": {"user_id": True}}, -32602),
        ({"name": ["weather"]}, -32602),
        ({}, -32602),
        ([], -32602),
    ],
)
def test_wrong_calls_get_an_error_of_the_protocol(
    mended: Gateway, params: object, code: int
) -> None:
    reply = mended.send(params)
    assert reply["error"]["code"] == code
    assert reply["id"] == 7
    for span in mended.spans("tools/call"):
        assert attributes(span)["error.type"] == str(code)
        assert span.status.status_code.name == "ERROR"
        assert not span.events


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"\xff", -32700),
        (b"[]", -32600),
        (b'{"jsonrpc": "1.0"}', -32600),
        (b'{"jsonrpc": "2.0", "method": "tools/list"}', -32601),
    ],
)
def test_wrong_messages_get_an_error_of_the_protocol(
    mended: Gateway, body: bytes, code: int
) -> None:
    reply = mended.client.post("/tools/invoke", content=body, headers=AGENT).json()
    assert reply["error"]["code"] == code


@pytest.mark.parametrize("city", ["Atlantis"])
def test_a_tool_that_fails_answers_with_is_error(gateway: Gateway, city: str) -> None:
    for name in ("weather", "plan-trip"):
        reply = gateway.call(name, city=city)
        assert reply["result"]["isError"]
        assert "not on the map" in reply["result"]["content"][0]["text"]
        span = gateway.spans(f"tools/call {name}")[-1]
        assert attributes(span)["error.type"] == "tool_error"
        assert span.status.status_code.name == "ERROR"


def test_unknown_rows_are_errors_of_the_tool(mended: Gateway) -> None:
    assert mended.call("check-stock", sku="nothing")["result"]["isError"]
    assert mended.call("list-orders", user_id=12345)["result"]["isError"]


def test_callers_need_a_key(mended: Gateway) -> None:
    for headers in ({}, {"authorization": "Bearer x"}, {"authorization": "Basic demo-key-agent"}):
        for response in (
            mended.client.post("/tools/invoke", json={}, headers=headers),
            mended.client.get("/users/1/orders", headers=headers),
        ):
            assert response.status_code == 401
    assert not mended.spans("tools/call")


def test_other_endpoints(mended: Gateway) -> None:
    assert mended.client.get("/health").json() == {"status": "ok"}
    tools = mended.client.get("/tools").json()["tools"]
    assert [tool["name"] for tool in tools][:2] == ["database-query", "check-stock"]
    assert mended.client.get("/tools/weather").json() in tools
    assert mended.client.get("/tools/crystal-ball").status_code == 404
    orders = mended.client.get("/users/5/orders", headers=AGENT).json()["orders"]
    reply = mended.call("list-orders", user_id=5)
    assert json.loads(reply["result"]["content"][0]["text"])["orders"] == orders
    assert mended.client.get("/users/12345/orders", headers=AGENT).status_code == 404
    assert mended.client.get("/users/x/orders", headers=AGENT).status_code == 404


def test_the_rate_limit_is_per_caller() -> None:
    limit = RateLimit(per_second=0, burst=2)
    assert [limit.allow("a") for _ in range(3)] == [True, True, False]
    assert limit.allow("b")


def test_e_mail_addresses_are_redacted_both_ways() -> None:
    call = ToolCall("weather", "agent", {"city": "ask ann@example.org", "days": 3})
    plugin = RedactEmail()
    plugin.before(call)
    call.result = "from bob@example.org"
    plugin.after(call)
    assert call.arguments == {"city": "ask [e-mail]", "days": 3}
    assert call.result == "from [e-mail]"
