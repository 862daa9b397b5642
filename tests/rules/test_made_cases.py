"""Shapes of transactions on which a widely used product has an answer, made by hand.

Its public tests describe them in words and numbers; these are our own spans of the same shape. All
times are milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from perfkit.rules import evaluate
from perfkit.rules.fixed import FixedTables
from perfkit.rules.load import load_rules

RULES = {rule.id: rule for rule in load_rules()}
Row = dict[str, Any]


def transaction(children: list[Row], length: float = 20_000, **root: Any) -> list[Row]:
    top = {"span_id": 1, "kind": "server", "name": "GET /", "endpoint": "GET /", "start_ns": 0}
    rows = [{**top, "duration_ns": round(length * 1e6), **root}]
    return rows + [{"span_id": n, "parent_id": 1, **one} for n, one in enumerate(children, 2)]


def http(start: float, length: float, url: str, **data: Any) -> Row:
    return {
        "kind": "client",
        "name": "GET",
        "http_method": "GET",
        "peer": "api",
        "start_ns": round(start * 1e6),
        "duration_ns": round(length * 1e6),
        "attributes": json.dumps({"url.full": url} | data),
    }


def sql(start: float, length: float, text: str, system: str = "mysql") -> Row:
    return {
        "kind": "client",
        "name": "query",
        "db_system": system,
        "db_statement": text,
        "start_ns": round(start * 1e6),
        "duration_ns": round(length * 1e6),
    }


def in_turn(lengths: list[float], gap: float = 0) -> list[Row]:
    starts = [sum(lengths[:n]) + n * gap for n in range(len(lengths))]
    both = zip(starts, lengths, strict=True)
    return [http(start, length, f"/api/e{n}") for n, (start, length) in enumerate(both)]


def at_once(count: int, length: float, url: Callable[[int], str], **data: Any) -> list[Row]:
    return [http(0, length, url(number), **data) for number in range(count)]


def loop(count: int, length: float, text: str = "SELECT * FROM author WHERE id = %s") -> list[Row]:
    source = sql(0, 5, "SELECT * FROM book")
    return [source, *(sql(10 + n * (length + 1), length, text) for n in range(count))]


def rounds(count: int, *parts: Callable[[float], Row], step: float = 40) -> list[Row]:
    """Return parts that come again and again, a fifth of a round each."""
    return [
        part(n * step + place * step / 5) for n in range(count) for place, part in enumerate(parts)
    ]


def author(start: float, length: float = 7) -> Row:
    return sql(start, length, "SELECT name FROM author WHERE id = $1", "postgresql")


def cover(start: float, length: float = 7) -> Row:
    return http(start, length, "/covers")


def resolver(start: float, length: float = 7) -> Row:
    return {"name": "resolve", "start_ns": round(start * 1e6), "duration_ns": round(length * 1e6)}


def asset(url: str, **data: Any) -> list[Row]:
    return [http(0, 1000, url, **data)]


def overhead(count: int, wait: float, version: str = "1.1") -> list[Row]:
    queued = {"network.protocol.version": version, "http.request.request_start": wait / 1000}
    return [http(1, 1000, "/api/one", **queued) for _ in range(count)]


def documents(count: int, length: float) -> list[Row]:
    find = [{"find": "products"}, *({"find": "reviews", "filter": {"id": "?"}},) * count]
    texts = [json.dumps(one) for one in find]
    return [sql(n * 60, length, text, "mongodb") for n, text in enumerate(texts)]


COUNT = "SELECT COUNT(*) FROM products"
BY_NAME = "SELECT id FROM customers WHERE name = $1"
BY_TYPE = "SELECT id FROM authors WHERE type = $1"
QUOTED = "SELECT m.* FROM a JOIN b ON a.id = b.a AND b.x = 'x{}' ORDER BY b.at DESC LIMIT 3"
LARGE = {"http.response_content_length": 50_000_000}
BODY = {"http.response_content_length": 1_000_000}
DECODED = {"http.decoded_response_content_length": 1_000_000}
ATTACHMENT = 'attachment; filename="a.pdf"'
ATTACHED = {"http.response.header.content-disposition": [ATTACHMENT]}
DOWNLOAD = "https://cdn/assets/app{}"

# fmt: off
CASES: tuple[tuple[str, str, list[Row], bool], ...] = (
    ("http: saves 2 s", "calls.serial-parallelisable", in_turn([1000] * 3), True),
    ("http: five of 900 ms", "calls.serial-parallelisable", in_turn([900] * 5), True),
    ("http: only two", "calls.serial-parallelisable", in_turn([3000] * 2), False),
    ("http: long work between", "calls.serial-parallelisable", in_turn([2000] * 3, 10_000), False),
    ("http: half a second between", "calls.serial-parallelisable",
     in_turn([500, 500, 1000], 500), False),
    ("api: ten at once", "calls.n-plus-one-api",
     at_once(10, 100, lambda n: f"/api/books?book_id={n}"), True),
    ("api: nine are too few", "calls.n-plus-one-api",
     at_once(9, 1000, lambda n: f"/api/books?book_id={n}"), False),
    ("api: fifty short ones", "calls.n-plus-one-api",
     at_once(50, 10, lambda n: f"/api/books?book_id={n}"), True),
    ("api: five of 10 ms", "calls.n-plus-one-api",
     at_once(5, 10, lambda n: f"/api/books?book_id={n}"), False),
    ("api: ids in path and query", "calls.n-plus-one-api",
     at_once(11, 28, lambda n: f"http://service.io/clients/{n}/mario/{n * 100}/info?id={n}"), True),
    ("api: short hashes", "calls.n-plus-one-api",
     at_once(11, 28, lambda n: f"/parts/7be9a2532{n % 10}/stock"), True),
    ("api: slugs that end in a number", "calls.n-plus-one-api",
     at_once(11, 28, lambda n: f"/parts/bolt-{n}/stock"), True),
    ("api: names in the query in any order", "calls.n-plus-one-api",
     at_once(11, 28, lambda n: f"/parts?a={n}&b=1" if n % 2 else f"/parts?b={n}&a=1"), True),
    ("api: different addresses", "calls.n-plus-one-api",
     at_once(12, 100, lambda n: "/api/" + "abcdefghijkl"[n]), False),
    ("api: files", "calls.n-plus-one-api",
     at_once(11, 28, lambda n: f"/clients/info/{n}.json"), False),
    ("api: a file each", "calls.n-plus-one-api",
     at_once(11, 28, lambda n: f"/clients/{n}/info/file.json"), False),
    ("api: GraphQL", "calls.n-plus-one-api", at_once(11, 28, lambda n: f"/graphql?q={n}"), False),
    ("api: build data", "calls.n-plus-one-api",
     at_once(11, 28, lambda n: f"/_next/data/{n}/a"), False),
    ("api: prefetching", "calls.n-plus-one-api",
     at_once(11, 28, lambda n: f"/users?id={n}", **{"http.request.prefetch": True}), False),
    ("payload: no file", "net.large-payload", [http(0, 1000, "/api/a", **LARGE)], True),
    ("payload: JSON with a query", "net.large-payload",
     [http(0, 1000, DOWNLOAD.format(".json?foo=bar"), **LARGE)], True),
    ("payload: JSON with a slash", "net.large-payload",
     [http(0, 1000, DOWNLOAD.format(".json/?foo=bar"), **LARGE)], True),
    ("payload: sound", "net.large-payload",
     [http(0, 1000, DOWNLOAD.format(".mp3"), **LARGE)], False),
    ("payload: over in a millisecond", "net.large-payload", [http(0, 1, "/api/a", **LARGE)], False),
    ("payload: a size as text", "net.large-payload",
     [http(0, 1000, "/api/a", **{"http.response_content_length": "50_000_000"})], True),
    ("payload: at the limit", "net.large-payload",
     [http(0, 1000, "/api/a", **{"http.response_content_length": 300_000})], False),
    ("payload: prefetching", "net.large-payload",
     [http(0, 1000, "/api/a", **LARGE, **{"http.request.prefetch": True})], False),
    ("db in turn: one needs nothing", "db.consecutive-independent",
     [sql(0, 50, BY_NAME), sql(50, 50, BY_TYPE), sql(100, 900, COUNT)], True),
    ("db in turn: none needs anything", "db.consecutive-independent",
     [sql(n * 1000, 1000, f"SELECT id FROM t{'abc'[n]}") for n in range(3)], True),
    ("db in turn: little to save", "db.consecutive-independent",
     [sql(0, 10, BY_NAME), sql(10, 10, BY_TYPE), sql(20, 900, COUNT)], False),
    ("db in turn: a small part to save", "db.consecutive-independent",
     [sql(0, 100, BY_NAME), sql(100, 100, BY_TYPE), sql(200, 3000, COUNT)], False),
    ("db in turn: values in the text", "db.consecutive-independent",
     [sql(n * 750, 750, QUOTED.format(n)) for n in range(3)], False),
    ("db in turn: a cut text", "db.consecutive-independent",
     [sql(0, 200, BY_NAME), sql(200, 200, BY_TYPE), sql(400, 900, "SELECT id FROM a ...")], False),
    ("n+1: six of 20 ms", "db.n-plus-one", loop(6, 20), True),
    ("n+1: literals", "db.n-plus-one",
     [*loop(0, 0), *(sql(10 + n * 21, 20, f"SELECT * FROM author WHERE id = {n}")
                     for n in range(10))], True),
    ("n+1: four", "db.n-plus-one", loop(4, 100), False),
    ("n+1: fast", "db.n-plus-one", loop(6, 1), False),
    ("n+1: Redis before", "db.n-plus-one",
     [sql(0, 5, "GET authors", "redis"), *loop(10, 20)[1:]], False),
    ("n+1: Redis each time", "db.n-plus-one", loop(10, 20, "GET author:1")[:1]
     + [sql(10 + n * 21, 20, "GET author:%s", "redis") for n in range(10)], False),
    ("n+1: overlapping", "db.n-plus-one",
     [sql(0, 5, "SELECT * FROM book"), *(sql(10 + n * 10, 20, BY_NAME) for n in range(10))], True),
    ("m·n+1: three rounds", "db.mn-plus-one", rounds(3, author, cover, resolver), True),
    ("m·n+1: two rounds", "db.mn-plus-one", rounds(2, author, cover, resolver, step=100), False),
    ("m·n+1: the third is not whole", "db.mn-plus-one",
     rounds(3, lambda at: author(at, 30), cover)[:-1], False),
    ("m·n+1: a query in each resolver", "db.mn-plus-one",
     rounds(4, resolver, author, step=60), True),
    ("m·n+1: 48 ms in all", "db.mn-plus-one",
     rounds(3, lambda at: author(at, 8), lambda at: cover(at, 8)), False),
    ("m·n+1: Redis", "db.mn-plus-one",
     rounds(5, resolver, lambda at: sql(at, 20, "GET author:?", "redis")), False),
    ("m·n+1: hardly any of it is queries", "db.mn-plus-one",
     rounds(4, lambda at: author(at, 1), lambda at: cover(at, 100), step=600), False),
    ("m·n+1: the rounds differ", "db.mn-plus-one",
     rounds(2, author, cover) + rounds(1, author, resolver, cover), False),
    ("m·n+1: a cut text", "db.mn-plus-one",
     rounds(3, cover, lambda at: sql(at, 20, "SELECT name FROM author WHERE ...")), False),
    ("mongo: fifteen", "db.n-plus-one", documents(15, 20), True),
    ("mongo: three", "db.n-plus-one", documents(3, 20), False),
    ("mongo: of 1 ms", "db.n-plus-one", documents(15, 1), False),
    ("http: a trailing short one", "calls.serial-parallelisable",
     in_turn([900] * 5 + [400]), True),
    ("overhead: six at once", "net.http1-queueing", overhead(6, 600), True),
    ("overhead: five at once", "net.http1-queueing", overhead(5, 600), False),
    ("overhead: a short wait", "net.http1-queueing", overhead(6, 400), False),
    ("overhead: HTTP/3", "net.http1-queueing", overhead(6, 600, "h3"), False),
    ("payload: a download", "net.large-payload",
     asset("/download/1", **LARGE, **ATTACHED), False),
    ("payload: a download that the SDK describes", "net.large-payload",
     asset("/download/1", **LARGE, response={"headers": {"content-disposition": ATTACHMENT}}),
     False),
    ("assets: as they are", "net.uncompressed", asset("/app.js", **BODY, **DECODED), True),
    ("assets: with a query", "net.uncompressed", asset("/app.js?x=1", **BODY, **DECODED), True),
    ("assets: an image", "net.uncompressed", asset("/a.jpg", **BODY, **DECODED), False),
    ("assets: a font", "net.uncompressed", asset("/a.woff2", **BODY, **DECODED), False),
    ("assets: compressed", "net.uncompressed",
     asset("/app.js", **BODY, **{"http.decoded_response_content_length": 3_000_000}), False),
    ("slow: a cut text", "db.slow-query", [sql(0, 1005, "SELECT id FROM products ...")], False),
    ("slow: of the session", "db.slow-query", [sql(0, 1005, "SELECT VERSION(), @@sql_mode")], True),
    ("slow: 1 s", "db.slow-query", [sql(0, 1001, BY_NAME)], True),
    ("slow: 499 ms", "db.slow-query", [sql(0, 499, BY_NAME)], False),
    ("slow: no question", "db.slow-query",
     [sql(0, 100_000, "DELETE FROM t WHERE id = %s")], False),
)
# fmt: on


@pytest.mark.parametrize(
    ("rule", "spans", "speaks"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_a_rule_speaks_or_is_quiet(rule: str, spans: list[Row], speaks: bool) -> None:
    (outcome,) = evaluate.run([RULES[rule]], FixedTables({"spans": transaction(spans)}))
    assert outcome.state != "error", outcome.reason
    assert bool(outcome.findings) == speaks


def test_who_made_the_spans_and_for_whom_counts() -> None:
    browser = {"scope": "sentry.javascript.browser"}
    spans = [row | browser for row in transaction(in_turn([2000] * 3))]
    (outcome,) = evaluate.run([RULES["calls.serial-parallelisable"]], FixedTables({"spans": spans}))
    assert not outcome.findings
    resolvers = transaction(
        [sql(0, 50, BY_NAME), sql(50, 50, BY_TYPE), sql(100, 900, COUNT)],
        endpoint="POST /api/graphql",
    )
    (outcome,) = evaluate.run(
        [RULES["db.consecutive-independent"]], FixedTables({"spans": resolvers})
    )
    assert not outcome.findings


def test_what_is_large_on_purpose_is_no_saving() -> None:
    def answer(number: int, path: str, length: float) -> Row:
        sizes = {"url.path": path, "http.response.body.size": 3_000_000}
        return {
            "trace_lo": number,
            "span_id": 1,
            "kind": "server",
            "name": "GET",
            "http_method": "GET",
            "endpoint": "GET /files/{name}",
            "start_ns": 0,
            "duration_ns": round(length * 1e6),
            "attributes": json.dumps(sizes),
        }

    spans = [answer(1, "/files/all.json", 1_000), answer(2, "/files/film.mp4", 9_000)]
    (outcome,) = evaluate.run([RULES["net.large-payload"]], FixedTables({"spans": spans}))
    (finding,) = outcome.findings
    assert finding.impact_high_ratio is not None
    assert 0 < finding.impact_high_ratio <= 0.1


def test_a_single_call_to_where_others_ask_in_a_loop_is_no_saving() -> None:
    def request(number: int, calls: list[Row]) -> list[Row]:
        return [row | {"trace_lo": number} for row in transaction(calls, 5_000)]

    loop = [http(n * 40, 40, f"http://api/items/{n}") for n in range(12)]
    single = [request(number, [http(0, 4_000, "http://api/items/1")]) for number in range(2, 6)]
    spans = [*request(1, loop), *(row for rows in single for row in rows)]
    (outcome,) = evaluate.run([RULES["calls.n-plus-one-api"]], FixedTables({"spans": spans}))
    (finding,) = outcome.findings
    assert finding.impact_high_ratio is not None
    assert 0 < finding.impact_high_ratio <= 480 / 25_000


def test_what_asks_for_something_else_each_time_is_not_redundant() -> None:
    def request(number: int, texts: list[str]) -> list[Row]:
        calls = [sql(n * 200, 200, text) for n, text in enumerate(texts)]
        return [row | {"trace_lo": number} for row in transaction(calls, 5_000)]

    text = "SELECT a FROM b WHERE id = {}"
    spans = request(1, [text.format(7)] * 10)
    for number in range(2, 6):
        spans += request(number, [text.format(n) for n in range(10)])
    (outcome,) = evaluate.run([RULES["db.redundant-query"]], FixedTables({"spans": spans}))
    (finding,) = outcome.findings
    assert finding.impact_high_ratio is not None
    assert 0 < finding.impact_high_ratio <= 1_800 / 25_000 + 1e-6


def test_repeats_that_follow_no_query_are_no_saving_of_n_plus_one() -> None:
    def request(number: int, calls: list[Row]) -> list[Row]:
        return [row | {"trace_lo": number} for row in transaction(calls, 5_000)]

    spans = request(1, loop(6, 20))
    for number in range(2, 6):
        spans += request(number, loop(6, 400)[1:])
    (outcome,) = evaluate.run([RULES["db.n-plus-one"]], FixedTables({"spans": spans}))
    (finding,) = outcome.findings
    assert finding.impact_high_ratio is not None
    assert 0 < finding.impact_high_ratio <= 120 / 25_000


def test_a_query_that_a_list_comes_before_is_no_saving_of_mn_plus_one() -> None:
    # What N+1 speaks of, in other requests of the same endpoint.
    spans = transaction(rounds(3, author, cover, resolver), 5_000)
    for number in range(2, 6):
        after_list = loop(6, 400, "SELECT name FROM author WHERE id = $1")
        calls = [one | {"db_system": "postgresql"} for one in after_list]
        spans += [row | {"trace_lo": number} for row in transaction(calls, 5_000)]
    (outcome,) = evaluate.run([RULES["db.mn-plus-one"]], FixedTables({"spans": spans}))
    (finding,) = outcome.findings
    assert finding.impact_high_ratio is not None
    assert 0 < finding.impact_high_ratio <= 21 / 25_000


def test_keys_that_are_read_side_by_side_are_no_saving_of_reading_them_together() -> None:
    def request(number: int, *, apart: bool) -> list[Row]:
        keys = [sql(n * 40 if apart else 0, 30, f"GET key:{n}", "redis") for n in range(20)]
        return [row | {"trace_lo": number} for row in transaction(keys, 1_000)]

    spans = [row for number in range(1, 5) for row in request(number, apart=True)]
    alone = evaluate.run([RULES["cache.key-by-key"]], FixedTables({"spans": spans}))
    spans += [row for number in range(5, 9) for row in request(number, apart=False)]
    mixed = evaluate.run([RULES["cache.key-by-key"]], FixedTables({"spans": spans}))
    saved = [outcome.findings[0].impact_high_ratio for (outcome,) in (alone, mixed)]
    assert saved[0] is not None
    assert saved[1] == pytest.approx(saved[0] / 2)
