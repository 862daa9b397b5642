"""The graded faults are as strong as they say, where they say, and the same in every run."""

from __future__ import annotations

import polars as pl
import pytest

from bench import rca, rca_graded, rca_peers


@pytest.fixture(scope="module")
def place() -> rca_graded.Place:
    return next(rca_graded.places())


def test_they_are_the_same_again(place: rca_graded.Place) -> None:
    fault = place.fault("cpu", 2.0, 0.2)
    again = next(rca_graded.places())
    assert place.side("x", fault, 20).equals(again.side("x", fault, 20))


def own_ms(spans: pl.DataFrame) -> dict[str, float]:
    """Return the mean time of each service's own spans that no child takes."""
    length = pl.col("end_ns") - pl.col("start_ns")
    below = spans.group_by(span_id="parent_id").agg(below=length.sum())
    served = spans.filter(span_kind="server").join(below, on="span_id", how="left")
    own = served.group_by("service").agg(((length - pl.col("below").fill_null(0)) / 1e6).mean())
    return dict(own.iter_rows())


def test_a_slow_processor_lengthens_own_time_by_the_factor_and_only_there(
    place: rca_graded.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rca_graded.Run, "lost", 0.0)
    before, after = (
        own_ms(place.side("x", fault)) for fault in (None, place.fault("cpu", 3.0, 1.0))
    )
    grown = {service: after[service] / before[service] for service in before}
    assert grown.pop(place.service) == pytest.approx(3, rel=0.15)
    assert all(factor == pytest.approx(1, rel=0.25) for factor in grown.values())


def test_a_delay_is_on_the_ways_into_and_out_of_the_service(
    place: rca_graded.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rca_graded.Run, "lost", 0.0)
    spans = place.side("x", place.fault("delay", 3.0, 1.0))
    length = (pl.col("end_ns") - pl.col("start_ns")) / 1e6
    calls = spans.filter(span_kind="client").select("span_id", caller="service", took=length)
    ways = calls.join(
        spans.select(span_id="parent_id", callee="service", served=length), on="span_id"
    ).with_columns(way=pl.col("took") - pl.col("served"))
    hit = (pl.col("caller") == place.service) | (pl.col("callee") == place.service)
    means = ways.group_by(hit=hit).agg(pl.col("way").mean())
    by = dict(means.iter_rows())
    assert by[True] > 2
    assert by[False] < 1


def test_who_has_no_place_is_beyond_all_that_count() -> None:
    assert rca.rank_of("b", ["a", "b"]) == 2
    assert rca.rank_of("x", []) == 6
    assert rca.rank_of("x", list("abcdefgh")) == 9


@pytest.mark.parametrize("name", ["robust scores", "support and confidence", "smallest p"])
def test_other_methods_name_a_fault_that_all_can_see(place: rca_graded.Place, name: str) -> None:
    before, during = (place.side("x", fault, 60) for fault in (None, place.fault("cpu", 30.0, 1.0)))
    ranking = rca_peers.PEERS[name](before, during)
    assert set(ranking) == set(during["service"])
    # Those that call it are late as well, which these methods do not tell apart.
    assert rca.rank_of(place.service, ranking) <= rca.AT[-1]
