from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit import model, semconv

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["", "GET", "/users/42?x=1", "503", "true", "probabilistic"]),
    st.lists(st.integers(), max_size=2),
    st.binary(max_size=2),
)
CELERY = {"celery.task_name": "shop.tasks.bill", "messaging.destination": "celery"}
KINDS = st.sampled_from(model.KINDS)
SEMANTIC = st.dictionaries(st.sampled_from(sorted(semconv.SEMANTIC)), VALUES, max_size=8)
OTHERS = st.dictionaries(
    st.text(max_size=6).filter(lambda key: key not in semconv.SEMANTIC), VALUES, max_size=4
)


class Watched(dict[str, Any]):
    """Attributes that note which names they were asked for."""

    def __init__(self, *values: Any) -> None:
        super().__init__(*values)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)


@given(SEMANTIC, OTHERS, KINDS, st.sampled_from(model.STATUSES))
def test_only_the_semantic_attributes_are_looked_at(
    semantic: dict[str, Any], others: dict[str, Any], kind: str, status: str
) -> None:
    both = Watched({**semantic, **others})
    answers = (semconv.status(status, both, kind), semconv.adjusted_count(both))
    columns = semconv.promote(both, kind)
    assert both.asked <= semconv.SEMANTIC
    alone = dict(semantic)
    assert (semconv.status(status, alone, kind), semconv.adjusted_count(alone)) == answers
    assert semconv.promote(alone, kind) == columns
    # What was not promoted is still there, and the other attributes are untouched.
    assert {key: value for key, value in both.items() if key in others} == others
    filled = sum(columns[name] is not None for name in semconv.PROMOTED)
    assert len(alone) == len(semantic) - filled


@given(SEMANTIC, KINDS)
def test_columns_fit_their_types(attributes: dict[str, Any], kind: str) -> None:
    columns = semconv.promote(attributes, kind)
    assert set(columns) <= set(model.SPANS.schema)
    for name in ("http_status", "db_rows", "thread_id", "pid"):
        limit = 2**31 if name == "http_status" else 2**63
        value = columns[name]
        assert value is None or (isinstance(value, int) and -limit <= value < limit)
    for name in columns.keys() - {"http_status", "db_rows", "thread_id", "pid"}:
        assert columns[name] is None or isinstance(columns[name], str)


@pytest.mark.parametrize(
    ("attributes", "kind", "expected"),
    [
        ({"http.request.method": "GET", "http.route": "/u/{id}"}, "server", "GET /u/{id}"),
        ({"http.method": "GET", "http.target": "/u/42?x=1"}, "server", "GET /u/{id}"),
        ({"http.request.method": "GET", "http.method": "X", "http.route": "/"}, "server", "GET /"),
        ({"http.route": "/u"}, "server", "/u"),
        ({"http.request.method": "GET"}, "server", "GET (no route)"),
        ({"http.request.method": "GET", "http.route": "/u"}, "client", None),
        ({"http.request.method": "GET", "url.full": "http://x/u"}, "internal", None),
        ({"http.request.method": "GET", "http.route": "/u"}, "internal", "GET /u"),
        ({"rpc.service": "Cart", "rpc.method": "Add"}, "server", "Cart/Add"),
        ({"rpc.method": "Add"}, "server", "Add"),
        ({"messaging.destination.name": "orders"}, "consumer", "process orders"),
        ({"messaging.destination": "q", "messaging.operation": "receive"}, "consumer", "receive q"),
        ({**CELERY, "messaging.operation.name": "run"}, "consumer", "run shop.tasks.bill"),
        (CELERY, "consumer", "process shop.tasks.bill"),
        (CELERY, "producer", None),
        ({"messaging.sidekiq.job_class": "Bill"}, "consumer", "process Bill"),
        ({"remoulade.actor_name": "bill"}, "consumer", "process bill"),
        ({"messaging.bullmq.job.name": "bill"}, "consumer", "process bill"),
        ({"messaging.destination.name": "orders"}, "producer", None),
        ({}, "server", None),
    ],
)  # fmt: skip
def test_endpoint(attributes: dict[str, Any], kind: str, expected: str | None) -> None:
    assert semconv.endpoint(attributes, kind) == expected


@pytest.mark.parametrize(
    ("attributes", "kind", "expected"),
    [
        ({"peer.service": "cart", "server.address": "10.0.0.1"}, "client", "cart"),
        ({"server.address": "db", "server.port": 5432}, "client", "db:5432"),
        ({"net.peer.name": "db"}, "client", "db"),
        ({"http.url": "http://stock.test:8080/items?q=1"}, "client", "stock.test:8080"),
        ({"url.full": "https://me:secret@stock.test#top"}, "client", "stock.test"),
        ({"url.full": "http://a.test/", "server.address": "b.test"}, "client", "b.test"),
        ({"http.url": "/items"}, "client", None),
        ({"http.url": 7}, "client", None),
        ({"http.url": "http://shop.test/items"}, "server", None),
        ({"db.system": "postgresql", "db.name": "shop"}, "client", "postgresql/shop"),
        ({"db.system.name": "sqlite"}, "internal", "sqlite"),
        ({"messaging.destination.name": "orders"}, "producer", "orders"),
        ({"server.address": "me"}, "server", None),
        ({}, "client", None),
    ],
)
def test_peer(attributes: dict[str, Any], kind: str, expected: str | None) -> None:
    assert semconv.peer(attributes, kind) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/users/42", "/users/{id}"),
        ("/users/42/orders/7?page=2#top", "/users/{id}/orders/{id}"),
        ("http://shop:8080/users/42?x=/1", "/users/{id}"),
        ("http://shop", "/"),
        ("/o/6f1e7a30-3c1c-4b6e-9d0e-2f8f3b8c0d11", "/o/{id}"),
        ("/o/507f1f77bcf86cd799439011", "/o/{id}"),
        ("/t/eyJhbGciOiJIUzI1NiJ9abc", "/t/{id}"),
        ("/charts/Sales%202026", "/charts/{id}"),
        ("/v1/tools/invoke", "/v1/tools/invoke"),
        ("/deadbeef", "/deadbeef"),
        ("/a-very-long-but-ordinary-name", "/a-very-long-but-ordinary-name"),
        ("", ""),
    ],
)
def test_template_path(path: str, expected: str) -> None:
    assert semconv.template_path(path) == expected
    assert semconv.template_path(expected) == expected


@pytest.mark.parametrize(
    ("recorded", "attributes", "kind", "expected"),
    [
        ("ok", {}, "server", "ok"),
        ("unset", {}, "server", "unset"),
        ("error", {"success": True}, "server", "error"),
        ("ok", {"success": False}, "internal", "error"),
        ("ok", {"success": "false"}, "internal", "error"),
        ("ok", {"success": True}, "internal", "ok"),
        ("ok", {"graphql.errors.count": 2}, "internal", "error"),
        ("unset", {"hive.graphql.error.count": "1"}, "server", "error"),
        ("unset", {"graphql.error.count": 0}, "server", "unset"),
        ("unset", {"graphql.response.errors.count": "many"}, "server", "unset"),
        ("unset", {"error": True}, "internal", "error"),
        ("unset", {"error": "a text"}, "internal", "unset"),
        ("unset", {"error.type": "TimeoutError"}, "internal", "error"),
        ("ok", {"http.response.status_code": 500}, "server", "error"),
        ("ok", {"http.status_code": "503"}, "server", "error"),
        ("ok", {"http.response.status_code": 404}, "server", "ok"),
        ("ok", {"http.response.status_code": 404}, "client", "error"),
        ("ok", {"http.response.status_code": "no number"}, "client", "ok"),
        ("unset", {"rpc.grpc.status_code": 13}, "server", "error"),
        ("unset", {"rpc.grpc.status_code": 0}, "server", "unset"),
        ("unset", {"rpc.grpc.status_code": 5}, "server", "unset"),
        ("unset", {"rpc.grpc.status_code": 5}, "client", "error"),
        ("unset", {"rpc.response.status_code": "UNAVAILABLE"}, "server", "error"),
        ("unset", {"rpc.response.status_code": "OK"}, "client", "unset"),
        ("unset", {"rpc.connect_rpc.error_code": "not_found"}, "server", "unset"),
        ("ok", {"rpc.jsonrpc.error_code": -32603}, "server", "error"),
        ("ok", {"http.response.status_code": 200, "grpc.status_code": "14"}, "server", "error"),
    ],
)
def test_status(recorded: str, attributes: dict[str, Any], kind: str, expected: str) -> None:
    assert semconv.status(recorded, attributes, kind) == expected


@pytest.mark.parametrize(
    ("attributes", "trace_state", "expected"),
    [
        ({}, "", 1.0),
        ({}, "ot=th:0", 1.0),
        ({}, "ot=th:8", 2.0),
        ({}, "vendor=x, ot=rv:123;th:c", 4.0),
        ({}, "ot=th:fd70a3d70a3d71", 100.0),
        ({"SampleRate": 7}, "ot=th:8", 2.0),
        ({}, "ot=p:3;r:9", 8.0),
        ({}, "ot=p:3;th:8", 2.0),
        ({}, "ot=p:63", 1.0),
        ({}, "ot=p:0", 1.0),
        ({"SampleRate": 7}, "ot=rv:8", 7.0),
        ({"SampleRate": 7}, "ot=th:XYZ", 7.0),
        ({"SampleRate": "20"}, "", 20.0),
        ({"SampleRate": 0}, "", 1.0),
        ({"sampling.probability": 0.25}, "", 4.0),
        ({"sampling.probability": 7}, "", 1.0),
        ({"sampler.type": "probabilistic", "sampler.param": 0.2}, "", 5.0),
        ({"sampler.type": "ratelimiting", "sampler.param": 0.2}, "", 1.0),
        ({"sampler.param": 0.2}, "", 1.0),
        ({"sampling.probability": float("nan")}, "", 1.0),
    ],
)
def test_adjusted_count(attributes: dict[str, Any], trace_state: str, expected: float) -> None:
    assert semconv.adjusted_count(attributes, trace_state) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, None),
        ({"service.instance.id": "a", "host.name": "h", "process.pid": 3}, "a"),
        ({"k8s.pod.name": "p", "host.name": "h"}, "p"),
        ({"host.name": "h", "process.pid": 3}, "h:3"),
        ({"hostname": "h"}, "h"),
        ({"process.pid": 3}, None),
    ],
)
def test_instance(attributes: dict[str, Any], expected: str | None) -> None:
    assert semconv.instance(attributes) == expected


def test_the_present_name_wins_and_the_past_one_stays() -> None:
    attributes: dict[str, Any] = {"db.query.text": "SELECT 1", "db.statement": "SELECT 2"}
    assert semconv.promote(attributes, "client")["db_statement"] == "SELECT 1"
    assert attributes == {"db.statement": "SELECT 2"}


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ('{"film":"?"}', 'find ratings {"film":"?"}'),
        ('{"find":"ratings","filter":{}}', '{"find":"ratings","filter":{}}'),
        ("find ratings", "find ratings"),
        (None, None),
    ],
)
def test_a_filter_of_mongodb_comes_after_command_and_collection(
    statement: str | None, expected: str | None
) -> None:
    attributes = {"db.system": "mongodb", "db.statement": statement}
    named = {**attributes, "db.operation": "find", "db.mongodb.collection": "ratings"}
    assert semconv.promote(dict(named), "client")["db_statement"] == expected
    assert semconv.promote(dict(attributes), "client")["db_statement"] == statement
    other = {**named, "db.system": "postgresql"}
    assert semconv.promote(other, "client")["db_statement"] == statement


def test_a_value_of_the_wrong_type_stays_among_the_attributes() -> None:
    attributes: dict[str, Any] = {"http.status_code": "many", "db.response.returned_rows": 2**70}
    columns = semconv.promote(attributes, "client")
    assert (columns["http_status"], columns["db_rows"]) == (None, None)
    assert len(attributes) == 2
