from __future__ import annotations

import random

import numpy as np
import pytest

from perfkit.analysis.comparison import contrast
from perfkit.analysis.comparison.evidence import own_times
from perfkit.analysis.comparison.root_cause import Causes, rank
from tests.analysis import shop
from tests.analysis.build import Memory


def causes(change: shop.Change | None, *, seed: int = 2) -> Causes:
    before, after = shop.capture(seed=1), shop.capture(seed=seed, change=change)
    return rank(contrast.of_captures([before], [after]))


def first(found: Causes) -> str:
    assert found.ranking["score"][0] > 0
    assert found.ranking["verdict"].to_list()[0] == "cause"
    assert set(found.ranking["verdict"][1:]) <= {"no evidence"}
    name: str = found.ranking["component"][0]
    return name


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("GET /user", "users"),
        ("GET /stock", "stock"),
        ("GET /orders", "orders"),
        ("GET /cart", "gateway"),
        # The time between client and server is the callee's: its network, its queue.
        ("call stock", "stock"),
        ("call users", "users"),
        # A database that one service alone calls is part of it.
        ("SELECT users", "users"),
    ],
)
@pytest.mark.parametrize("factor", [2.0, 20.0])
def test_what_got_slower_is_named(name: str, component: str, factor: float) -> None:
    found = causes(shop.slower(name, factor))
    assert first(found) == component
    top = found.ranking.row(0, named=True)
    rest = found.ranking.filter(found.ranking["component"] != component)
    assert top["latency_score"] > 2 * rest["latency_score"].max()
    assert top["explained_ratio"] > 0.8
    (why,) = found.evidence.filter(component=component).to_dicts()
    assert (why["reason"], why["operation"]) == ("slower", name)
    assert why["after"] / why["before"] == pytest.approx(factor, rel=0.1)


@pytest.mark.parametrize(
    ("name", "component"),
    [("GET /stock", "stock"), ("GET /orders", "orders"), ("GET /user", "users")],
)
def test_errors_count_where_they_begin(name: str, component: str) -> None:
    found = causes(shop.broken(name))
    assert first(found) == component
    rest = found.ranking.filter(found.ranking["component"] != component)
    assert rest["behaviour_score"].max() == 0


def test_who_no_longer_calls_is_named_and_not_who_is_no_longer_called() -> None:
    found = causes(shop.without("call stock"))
    assert first(found) == "orders"
    (why,) = found.evidence.filter(component="orders").to_dicts()
    assert (why["reason"], why["operation"]) == ("calls", "GET /orders")
    assert (why["child"], why["before"], why["after"]) == ("call stock → stock", 1.0, 0.0)


def test_a_callee_that_sends_no_spans_any_more_is_named() -> None:
    assert first(causes(shop.without("GET /stock"))) == "stock"


def test_who_repeats_calls_is_named_although_each_is_as_fast_as_before() -> None:
    found = causes(shop.repeated("SELECT stock", 12))
    assert first(found) == "stock"
    assert found.ranking["latency_score"][0] > 0.3


def test_a_component_that_several_call_and_that_sends_no_spans_stands_for_itself() -> None:
    def shared(spans: list[shop.Span], noise: random.Random) -> list[shop.Span]:
        return [
            dict(span, db_system="postgresql", db_statement=span["name"], peer="db")
            if span["name"].startswith("SELECT")
            else span
            for span in spans
        ]

    def slow(spans: list[shop.Span], noise: random.Random) -> list[shop.Span]:
        slowed = shop.slower("SELECT users", 9)(shop.slower("SELECT stock", 9)(spans, noise), noise)
        return shared(slowed, noise)

    before, after = shop.capture(seed=1, change=shared), shop.capture(seed=2, change=slow)
    assert first(rank(contrast.of_captures([before], [after]))) == "db"


def test_nothing_is_named_when_nothing_changed() -> None:
    for seed in range(2, 12):
        assert set(causes(None, seed=seed).ranking["verdict"]) == {"no evidence"}


def test_without_span_kinds_the_gap_is_still_the_callees() -> None:
    def bare(change: shop.Change | None) -> shop.Change:
        def stripped(spans: list[shop.Span], noise: random.Random) -> list[shop.Span]:
            return [
                dict(span, kind="unspecified")
                for span in (change(spans, noise) if change else spans)
            ]

        return stripped

    before = shop.capture(seed=1, change=bare(None))
    after = shop.capture(seed=2, change=bare(shop.slower("call stock", 30)))
    assert first(rank(contrast.of_captures([before], [after]))) == "stock"


def test_one_request_on_a_side_is_ranked_without_an_error() -> None:
    one = rank(contrast.of_captures([shop.capture(1)], [shop.capture(1, seed=2)]))
    assert set(one.ranking["component"]) == {"gateway", "users", "orders", "stock"}


def mixed(seed: int, *, carts: float, change: shop.Change | None = None) -> Memory:
    """Return requests of which a share is for the cart, behind a gateway whose spans and calls say
    no more than the method.
    """

    def generic(spans: list[shop.Span], noise: random.Random) -> list[shop.Span]:
        spans = change(spans, noise) if change else spans
        gone = "call orders" if noise.random() < carts else "call users"
        spans = shop.without(gone)(spans, noise)
        names = {"GET /cart": "/*", "call users": "HTTP GET", "call orders": "HTTP GET"}
        return [
            dict(
                span,
                name=names.get(span["name"], span["name"]),
                parent=names.get(span["parent"], span["parent"]),
            )
            for span in spans
        ]

    return shop.capture(seed=seed, change=generic)


def test_other_requests_are_no_cause() -> None:
    before, after = mixed(1, carts=0.8), mixed(2, carts=0.2)
    found = rank(contrast.of_captures([before], [after]))
    assert set(found.ranking["verdict"]) == {"no evidence"}
    assert found.ranking["behaviour_score"].max() == 0


def test_a_cause_is_found_among_other_requests() -> None:
    before = mixed(1, carts=0.8)
    after = mixed(2, carts=0.2, change=shop.slower("GET /orders", 1.3))
    assert first(rank(contrast.of_captures([before], [after]))) == "orders"


def test_what_few_requests_say_is_no_cause() -> None:
    before, after = (
        shop.capture(3, seed=1),
        shop.capture(2, seed=2, change=shop.without("GET /stock")),
    )
    found = rank(contrast.of_captures([before], [after])).ranking
    assert found["component"][0] == "stock"
    assert set(found["verdict"]) == {"no evidence"}


def test_two_that_changed_alike_are_not_told_apart() -> None:
    def change(spans: list[shop.Span], noise: random.Random) -> list[shop.Span]:
        for name in ("GET /user", "GET /orders"):
            more = 5 * noise.uniform(0.5, 1.5)
            spans = [
                dict(span, own=span["own"] + more) if span["name"] == name else span
                for span in spans
            ]
        return spans

    verdicts = {row["component"]: row["verdict"] for row in causes(change).ranking.to_dicts()}
    assert [verdicts[name] for name in ("users", "orders")] == ["candidate", "candidate"]
    assert {verdicts[name] for name in ("gateway", "stock")} == {"no evidence"}


def test_a_stretch_of_bad_luck_that_the_one_side_has_as_well_is_no_cause() -> None:
    def unlucky(spans: list[shop.Span], noise: random.Random) -> list[shop.Span]:
        return shop.slower("GET /stock", 3)(spans, noise) if noise.random() < 0.1 else spans

    before, after = (shop.capture(seed=seed, change=unlucky) for seed in (1, 2))
    found = rank(contrast.of_captures([before], [after])).ranking
    assert set(found["verdict"]) == {"no evidence"}


@pytest.mark.parametrize(
    ("names", "component"),
    [
        (("call users", "call orders"), "gateway"),
        (("call orders", "call stock"), "orders"),
        (("call orders",), "orders"),
        (("call stock",), "stock"),
    ],
)
def test_who_is_slow_towards_all_is_named_and_not_those_whom_it_calls(
    names: tuple[str, ...], component: str
) -> None:
    def change(spans: list[shop.Span], noise: random.Random) -> list[shop.Span]:
        for name in names:
            spans = shop.slower(name, 10)(spans, noise)
        return spans

    assert first(causes(change)) == component


def test_one_call_held_up_does_not_turn_the_evidence_around() -> None:
    quick, slow = np.full(20, 1.0), np.full(20, 2.0)
    held_up = np.append(quick, 1000.0)
    assert own_times(held_up, slow) == (1.0, 2.0), "slower by the median"
    assert own_times(quick, held_up) == (1.0, 1020 / 21), "what is rare counts"
    assert own_times(slow, quick) == (2.0, 1.0)
    assert own_times(quick[:0], slow) == (None, 2.0)
