"""What the rules print as saving, beside the same requests with the change really made.

Requests are drawn as steps; a plain loop adds up what they take before and after a cache, one query
for all rows, or calls side by side. It knows nothing of replays.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import pytest

from perfkit.analysis.session import Tables
from perfkit.rules import evaluate
from perfkit.rules.load import load_rules
from perfkit.rules.model import Finding
from tests.analysis.build import Memory, S, span_columns

MS = 1_000_000
RULES = {
    rule.id: rule
    for rule in load_rules()
    if rule.id in ("db.n-plus-one", "cache.repeated-get", "calls.serial-parallelisable")
}
ROUNDING = 0.02
"""Of all request time, as for pools: times are whole ms, and what one query for all rows costs is
taken for the mean number of rows, where requests with few rows gain less."""

Step = tuple[int, int]
"""How long the request works by itself, and how long the call after that takes: ms."""


def findings(rule_id: str, spans: Sequence[S]) -> list[Finding]:
    outcomes = evaluate.run([RULES[rule_id]], Tables(Memory({"spans": span_columns(spans)})))
    assert not [one.rule.id for one in outcomes if one.state == "error"]
    return evaluate.findings(outcomes)


def request(
    number: int,
    start: int,
    calls: Sequence[Step],
    after: int,
    texts: Sequence[dict[str, str]],
) -> list[S]:
    """Return the spans of a request that works, calls, works, calls … and works until its end."""
    at, rows = start, []
    for place, ((works, takes), columns) in enumerate(zip(calls, texts, strict=True), 2):
        begins = at + works
        at = begins + takes
        rows.append(
            S(place, begins * MS, at * MS, 1, number, kind="client", service="shop", **columns)
        )
    top = S(1, start * MS, (at + after) * MS, None, number, kind="server", service="shop",
            name="GET /a", endpoint="GET /a")  # fmt: skip
    return [top, *rows]


def holds(found: Sequence[Finding], before: float, after: float) -> None:
    low = sum(one.impact_low_ratio or 0 for one in found)
    high = sum(one.impact_high_ratio or 0 for one in found)
    assert low - ROUNDING <= 1 - after / before <= high + ROUNDING


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("dearer", "half_stays"), [(1.0, False), (2.0, False), (3.0, True)])
def test_one_query_for_all_rows_saves_what_is_printed(
    seed: int, dearer: float, half_stays: bool
) -> None:
    """One query takes as long as one to three of the single ones. The work between them asks, and
    handles a row: it goes with the queries, or half of it."""
    chance = random.Random(seed)
    after = chance.randint(0, 60)
    spans: list[S] = []
    before = changed = 0.0
    for number in range(1, 6):
        items = [
            (chance.randint(0, 4), chance.randint(5, 40)) for _ in range(chance.randint(6, 12))
        ]
        asked = [f"SELECT * FROM items WHERE id = {id}" for id in range(len(items))]
        texts = [
            {"db_system": "mysql", "db_statement": text}
            for text in ["SELECT * FROM orders", *asked]
        ]
        spans += request(number, number * 5_000, [(2, 5), *items], after, texts)
        work, queries = sum(works for works, _ in items), sum(takes for _, takes in items)
        share = min(1.0, dearer / len(items))
        before += 7 + work + queries + after
        first = items[0][0]
        between = (work - first) * ((1 + share) / 2 if half_stays else share)
        changed += 7 + first + between + queries * share + after
    found = findings("db.n-plus-one", spans)
    assert len(found) == 1
    holds(found, before, changed)


@pytest.mark.parametrize("seed", range(6))
def test_calls_side_by_side_save_what_is_printed(seed: int) -> None:
    chance = random.Random(seed)
    after = chance.randint(0, 60)
    spans: list[S] = []
    before = changed = 0.0
    for number in range(1, 6):
        items = [
            (chance.randint(0, 4), chance.randint(60, 200)) for _ in range(chance.randint(3, 5))
        ]
        texts = [
            {"name": f"GET /{place}", "peer": f"service {place}", "http_method": "GET"}
            for place in range(len(items))
        ]
        spans += request(number, number * 5_000, items, after, texts)
        before += sum(works + takes for works, takes in items) + after
        # Each call is sent without waiting for the one before; the work before each stays.
        sent = ended = 0
        for works, takes in items:
            sent += works
            ended = max(ended, sent + takes)
        changed += ended + after
    found = findings("calls.serial-parallelisable", spans)
    assert len(found) == 1
    holds(found, before, changed)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("lifetime_s", [60, 120, 300])
def test_a_cache_saves_what_is_printed(seed: int, lifetime_s: int) -> None:
    """Requests some seconds apart, each for one of two addresses; an answer is kept from its
    arrival on."""
    chance = random.Random(seed)
    after = chance.randint(0, 60)
    spans: list[S] = []
    before = changed = 0.0
    at, kept = 0, dict[int, int]()
    for number in range(1, 81):
        at += chance.randint(1, 60) * 1000
        which, takes = chance.randint(0, 1), chance.randint(60, 200)
        url = json.dumps({"url.full": f"http://bank/rates/{'ab'[which]}"})
        text = {"name": "GET", "peer": "bank", "http_method": "GET", "attributes": url}
        spans += request(number, at, [(2, takes)], after, [text])
        before += 2 + takes + after
        if at + 2 < kept.get(which, 0):
            changed += 2 + after
        else:
            changed += 2 + takes + after
            kept[which] = at + 2 + takes + lifetime_s * 1000
    found = findings("cache.repeated-get", spans)
    assert len(found) == 2
    holds(found, before, changed)
