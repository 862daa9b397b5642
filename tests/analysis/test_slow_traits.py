from __future__ import annotations

import json
import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.session import Tables
from perfkit.analysis.statistics.fisher import more_frequent
from perfkit.analysis.statistics.significance import LEVEL
from tests.analysis.build import S, analyse

Row = dict[str, Any]
MS = 1_000_000


def chance(a: int, n: int, k: int, total: int) -> float:
    """Return the chance that of n drawn at random at least a are among the k."""
    ways = sum(math.comb(k, i) * math.comb(total - k, n - i) for i in range(a, min(n, k) + 1))
    return ways / math.comb(total, n)


@given(st.lists(st.tuples(*[st.integers(0, 60)] * 3, st.integers(0, 60)), max_size=5))
def test_fishers_p_is_the_share_of_all_draws(cases: list[tuple[int, int, int, int]]) -> None:
    sound = []
    for a, n, k, more in cases:
        total = max(n, k) + more
        if max(0, n + k - total) <= a <= min(n, k):
            sound.append((a, n, k, total))
    columns = [np.array([case[i] for case in sound], dtype=np.int64) for i in range(4)]
    assert more_frequent(*columns).tolist() == pytest.approx([chance(*case) for case in sound])


def request(
    number: int,
    ms: float,
    *,
    attributes: Row | None = None,
    resource: Row | None = None,
    **more: Any,
) -> list[S]:
    """Return a request with a tool call below it."""
    start = number * 1000 * MS
    end = start + round(ms * MS)
    texts = {
        "attributes": json.dumps(attributes) if attributes else None,
        "resource": json.dumps(resource) if resource else None,
    }
    tool = more.pop("tool", None)
    spans = [
        S(1, start, end, trace=number + 1, kind="server", endpoint="POST /rpc", **texts, **more)
    ]
    if tool:
        spans.append(S(2, start, end, 1, trace=number + 1, kind="internal", tool=tool, name="call"))
    return spans


def traffic(slow: Any, *, requests: int = 2000, seed: int = 1) -> Tables:
    """Return requests with random tools, hosts and cache hits; those that `slow` names are slow."""
    chance = random.Random(seed)
    spans = []
    for number in range(requests):
        tool = chance.choice(["search", "render", "fetch", "ask"])
        host = chance.choice(["a", "b", "c"])
        hit = chance.random() < 0.5
        late = slow(tool, host, hit)
        ms = chance.uniform(100, 130) if late else chance.uniform(5, 25)
        spans += request(
            number,
            ms,
            attributes={"cache.hit": hit, "user.id": number},
            resource={"host.name": host},
            tool=tool,
        )
    return analyse(spans)


def best(tables: Tables) -> Row:
    rows: list[Row] = tables.frame("slow_traits").to_dicts()
    return rows[0]


def test_slow_requests_of_one_tool_on_one_host_are_found_by_themselves() -> None:
    # A twelfth of the requests is slow; 5 % are beyond the 95th percentile, all of these.
    row = best(traffic(lambda tool, host, hit: (tool, host) == ("ask", "b")))
    traits = {(row["key"], row["value"]), (row["key_2"], row["value_2"])}
    assert traits == {("tool", "ask"), ("host.name", "b")}
    assert row["slow_ratio"] == 1.0
    assert row["typical_ratio"] == 0.0
    assert row["lift"] > 10


def test_a_single_attribute_is_enough_when_the_rest_says_nothing() -> None:
    chance = random.Random(5)
    tables = traffic(lambda tool, host, hit: not hit and chance.random() < 0.2)
    row = best(tables)
    assert (row["key"], row["value"], row["key_2"]) == ("cache.hit", "false", None)
    keys = set(tables.frame("slow_traits").filter(kind="was")["key"])
    assert not keys & {"tool", "host.name", "user.id"}


def test_a_number_is_a_trait_by_being_large() -> None:
    chance = random.Random(3)
    spans = []
    for number in range(1000):
        size = chance.randrange(1000, 2000) * (50 if number % 14 == 0 else 1)
        spans += request(number, 5 + size / 500, attributes={"http.request.body.size": size})
    row = best(analyse(spans))
    assert row["key"] == "http.request.body.size"
    assert row["value"].startswith("> 1")


def test_an_attribute_that_reports_the_duration_is_no_reason() -> None:
    chance = random.Random(4)
    spans = []
    for number in range(400):
        ms = chance.uniform(1, 50)
        spans += request(number, ms, attributes={"duration.ms": ms})
    rows = analyse(spans).frame("slow_traits").to_dicts()
    assert {(row["kind"], row["key"]) for row in rows} == {("did", "duration.ms")}


@pytest.mark.parametrize("kind", ["server", "client"])
def test_the_port_of_the_caller_is_no_reason_and_that_of_who_is_called_may_be(kind: str) -> None:
    spans = []
    for number in range(400):
        late = number % 14 == 0
        start, ms = number * 1000 * MS, 100 if late else 5
        port = json.dumps({"net.peer.port": 50000 + number if late else 40000})
        end = start + ms * MS
        spans.append(S(1, start, end, trace=number + 1, kind="server", endpoint="GET /a"))
        spans.append(S(2, start, end, 1, trace=number + 1, kind=kind, name="b", attributes=port))
    keys = set(analyse(spans).frame("slow_traits")["key"])
    assert ("net.peer.port" in keys) == (kind == "client")


def test_calls_below_a_request_are_traits() -> None:
    spans = []
    for number in range(600):
        calls = 9 if number % 15 == 0 else 2
        start = number * 1000 * MS
        spans.append(
            S(1, start, start + calls * 10 * MS, trace=number + 1, kind="server", endpoint="GET /a")
        )
        spans += [
            S(
                2 + call,
                start + call * 10 * MS,
                start + (call + 1) * 10 * MS,
                1,
                number + 1,
                kind="client",
                peer="db:5432",
                db_system="postgresql",
                name="SELECT",
            )
            for call in range(calls)
        ]
    rows = analyse(spans).frame("slow_traits").to_dicts()
    assert ("calls to db:5432", "> 2.0") in {(row["key"], row["value"]) for row in rows}


@pytest.mark.parametrize("seed", range(8))
def test_what_is_slow_by_chance_has_no_traits_but_where_its_time_was(seed: int) -> None:
    chance = random.Random(seed)
    tables = traffic(lambda tool, host, hit: chance.random() < 0.06, seed=seed)
    assert tables.frame("slow_traits").filter(kind="was").is_empty()


@given(st.integers(0, 10_000))
def test_counts_and_shares_are_those_of_a_slow_count(seed: int) -> None:
    chance = random.Random(seed)
    spans, facts = [], []
    for number in range(chance.choice([19, 40, 90])):
        tool, ms = chance.choice(["x", "y", None]), chance.randrange(1, 60)
        weight = chance.choice([1.0, 1.0, 4.0])
        host = chance.choice(["h1", "h2"])
        if host == "h2" and chance.random() < 0.8:
            ms += 50
        spans += request(number, ms, resource={"host.name": host}, tool=tool, adjusted_count=weight)
        facts.append((ms * MS, weight, {("host.name", host), *([("tool", tool)] if tool else [])}))
    tables = analyse(spans)
    expanded = sorted(ms for ms, weight, _ in facts for _ in range(int(weight)))
    high, low = (float(np.quantile(expanded, level)) for level in (0.95, 0.75))
    enough = len(facts) >= 20
    slow = [fact for fact in facts if enough and fact[0] >= high and fact[0] > low]
    typical = [fact for fact in facts if enough and fact[0] <= low]
    found = tables.frame("slow_traits")
    for row in found.to_dicts():
        traits = {(row["key"], row["value"])}
        if row["key_2"]:
            traits.add((row["key_2"], row["value_2"]))
        if not all(key in ("host.name", "tool") for key, _ in traits):
            continue
        of_slow, of_typical = ([f for f in of if traits <= f[2]] for of in (slow, typical))
        assert (row["slow"], row["typical"]) == (len(of_slow), len(of_typical))
        weight_of = {id(of): sum(fact[1] for fact in of) for of in (slow, typical)}
        slow_ratio = sum(fact[1] for fact in of_slow) / weight_of[id(slow)]
        typical_ratio = sum(fact[1] for fact in of_typical) / weight_of[id(typical)]
        share = weight_of[id(slow)] / (weight_of[id(slow)] + weight_of[id(typical)])
        assert row["slow_ratio"] == pytest.approx(slow_ratio)
        assert row["typical_ratio"] == pytest.approx(typical_ratio)
        assert row["lift"] == pytest.approx(
            slow_ratio / (slow_ratio * share + typical_ratio * (1 - share))
        )
        p = chance_of(row, len(slow), len(typical))
        assert row["p_adjusted"] >= min(1.0, p) * (1 - 1e-9)
        assert row["p_adjusted"] < LEVEL


def chance_of(row: Row, slow: int, typical: int) -> float:
    return chance(row["slow"], slow, row["slow"] + row["typical"], slow + typical)


@pytest.mark.parametrize(
    "attributes",
    ['{"a": ', "[1, 2]", "null", '"x"', '{"a\\"b$.c[0]": "v"}', '{"": 1}', '{"a": {"b": [1]}}'],
)
def test_attributes_that_are_no_plain_object(attributes: str) -> None:
    spans = [
        S(
            1,
            n * 1000,
            n * 1000 + 10 + n % 30,
            trace=n + 1,
            kind="server",
            endpoint="GET /a",
            attributes=attributes,
        )
        for n in range(60)
    ]
    assert analyse(spans).frame("slow_traits").is_empty()


def test_few_requests_have_no_tail() -> None:
    assert analyse(request(1, 5)).frame("slow_traits").is_empty()
    assert analyse([]).frame("slow_traits").is_empty()


def test_the_replica_that_fails_is_named_as_its_operator_knows_it() -> None:
    chance = random.Random(11)
    spans = []
    for number in range(400):
        pod = chance.choice("abcd")
        failed = pod == "c" and chance.random() < 0.4
        spans += request(
            number,
            chance.uniform(5, 25),
            instance=f"b0a1{ord(pod)}",
            resource={"service.instance.id": f"b0a1{ord(pod)}", "k8s.pod.name": f"shop-{pod}"},
            attributes={
                "http.response.body.size": 21 if failed else 5000,
                **({"error.type": "RuntimeError"} if failed else {}),
            },
            status="error" if failed else "unset",
            http_status=500 if failed else 200,
        )
    rows = analyse(spans).frame("failure_traits")
    why, how = (rows.filter(kind=kind).to_dicts() for kind in ("was", "did"))
    assert [(row["key"], row["value"]) for row in why] == [("k8s.pod.name", "shop-c")]
    assert why[0]["failed_ratio"] == 1.0
    assert "instance=b0a199" in why[0]["also"]
    assert {row["key"] for row in how} <= {"http_status", "status", "http.response.body.size"}
    assert ("http_status", "500") in {(row["key"], row["value"]) for row in how}


def test_where_most_requests_fail_what_nearly_all_of_them_have_is_named_too() -> None:
    chance = random.Random(7)
    spans = []
    for number in range(300):
        tenant = chance.choices(["acme", "beta"], [9, 1])[0]
        spans += request(
            number,
            chance.uniform(5, 25),
            resource={"host.name": chance.choice("abc")},
            attributes={"tenant": tenant},
            status="error" if tenant == "acme" else "ok",
        )
    rows = analyse(spans).frame("failure_traits").filter(kind="was").to_dicts()
    assert [(row["key"], row["value"]) for row in rows] == [("tenant", "acme")]
    assert (rows[0]["failed_ratio"], rows[0]["ok_ratio"]) == (1.0, 0.0)
    assert rows[0]["lift"] < 1.2


@pytest.mark.parametrize("seed", range(4))
def test_what_fails_by_chance_has_no_traits_but_how_it_failed(seed: int) -> None:
    chance = random.Random(seed)
    spans = []
    for number in range(600):
        spans += request(
            number,
            chance.uniform(5, 25),
            resource={"host.name": chance.choice("abc")},
            attributes={"cart": chance.choice("xyz")},
            tool=chance.choice(["search", "render"]),
            status=chance.choice(["ok", "ok", "ok", "error"]),
        )
    assert analyse(spans).frame("failure_traits").filter(kind="was").is_empty()


@given(st.integers(0, 10_000))
def test_failures_are_counted_as_by_hand(seed: int) -> None:
    chance = random.Random(seed)
    spans, facts = [], []
    for number in range(chance.choice([19, 40, 90])):
        host, weight = chance.choice(["h1", "h2", "h3"]), chance.choice([1.0, 1.0, 4.0])
        failed = chance.random() < (0.8 if host == "h2" else 0.05)
        status = "error" if failed else chance.choice(["ok", "unset"])
        spans += request(
            number, 5, resource={"host.name": host}, status=status, adjusted_count=weight
        )
        facts.append((failed, host, weight))
    found = {
        row["value"]: row
        for row in analyse(spans).frame("failure_traits").to_dicts()
        if row["key"] == "host.name"
    }
    for host in ("h1", "h2", "h3"):
        a, b = (sum(f == side and h == host for f, h, _ in facts) for side in (True, False))
        n = sum(failed for failed, _, _ in facts)
        weight = {
            side: (
                sum(w for f, h, w in facts if f == side and h == host),
                sum(w for f, _, w in facts if f == side),
            )
            for side in (True, False)
        }
        all_of_host = weight[True][0] + weight[False][0]
        everything = weight[True][1] + weight[False][1]
        surely = len(facts) >= 20 and 0 < n < len(facts) and a + b >= 5
        # Corrected by all traits that can be tested: the hosts, and the two other statuses.
        p = chance_of({"slow": a, "typical": b}, n, len(facts) - n) if surely else 1.0
        lift = (weight[True][0] / weight[True][1]) / (all_of_host / everything) if a else 0.0
        others = weight[False][1] - weight[False][0]
        without = others / weight[False][1] / (1 - all_of_host / everything) if others else 0.0
        if host in found:
            row = found[host]
            assert (row["failed"], row["ok"]) == (a, b)
            assert row["failed_ratio"] == pytest.approx(weight[True][0] / weight[True][1])
            assert row["ok_ratio"] == pytest.approx(weight[False][0] / weight[False][1])
            assert row["lift"] == pytest.approx(lift)
            assert p * (1 - 1e-9) <= row["p_adjusted"] < LEVEL
        else:
            assert p * 20 >= LEVEL or max(lift, without) < 1.5 + 1e-9
