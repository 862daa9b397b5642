"""Shifts of about one time are told as one, what users felt first."""

from __future__ import annotations

from typing import Any

import pytest

from perfkit.report import episodes
from tests.report.incident import START, S


def shift(start: int, end: int, **more: Any) -> dict[str, Any]:
    given = {
        "series_id": 0,
        "kind": "latency",
        "measure": "p95_ns",
        "service": None,
        "endpoint": None,
        "instance": None,
        "attributes": None,
        "unit": "ns",
        "shape": "spike",
        "direction": "up",
        "start_ns": START + start * S,
        "end_ns": START + end * S,
        "changed_ns": START + start * S,
        "bucket_width_ns": S,
        "expected": 50e6,
        "mean": 400e6,
        "change_ratio": 7.0,
        "score": 10.0,
        "extra_ns": None,
        **more,
    }
    return given | {"duration_ns": given["end_ns"] - given["start_ns"]}


ERRORS = {"kind": "errors", "measure": "error_ratio", "unit": "1"}
CPU = {"kind": "resource", "measure": "system.cpu.utilization", "unit": "1", "endpoint": None}


def test_what_shares_half_of_the_longer_is_one_episode() -> None:
    found = episodes.find([shift(0, 10), shift(4, 12), shift(6, 14), shift(100, 104)])
    starts = [[(one["start_ns"] - START) // S for one in each.shifts] for each in found]
    # 6..14 shares 4 of 10 s with the clearest, although 6 of 8 s with the second.
    assert starts == [[0, 4], [6], [100]]


def test_a_spike_within_a_lasting_change_is_its_own_episode() -> None:
    assert len(episodes.find([shift(0, 300, shape="change"), shift(100, 120)])) == 2


def test_what_users_felt_comes_first() -> None:
    rows = [shift(0, 60, **CPU, score=99), shift(2, 60, endpoint="POST /a", extra_ns=5)]
    (episode,) = episodes.find(rows)
    assert episode.felt
    assert episode.leading["endpoint"] == "POST /a"


def test_faster_requests_are_nothing_to_suffer_from() -> None:
    (episode,) = episodes.find([shift(0, 60, direction="down")])
    assert not episode.felt


def test_an_endpoint_says_more_than_all_requests() -> None:
    rows = [shift(0, 60, extra_ns=9), shift(0, 60, endpoint="POST /a", extra_ns=8)]
    assert episodes.find(rows)[0].leading["endpoint"] == "POST /a"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "50 ms → 400 ms (8.0 ×)"),
        ({"mean": 65e6, "change_ratio": 0.3}, "50 ms → 65 ms (+30 %)"),
        ({"mean": 30e6, "change_ratio": -0.4}, "50 ms → 30 ms (−40 %)"),
        ({"mean": 5e9, "change_ratio": 99.0}, "50 ms → 5 s"),
        (CPU | {"expected": 0.2, "mean": 0.9, "change_ratio": 3.5}, "20 % → 90 % (4.5 ×)"),
        ({**ERRORS, "expected": 0.0, "mean": 0.1, "change_ratio": None}, "0 % → 10 %"),
    ],
)
def test_sizes_have_units_and_a_factor_where_it_means_something(
    change: dict[str, Any], expected: str
) -> None:
    assert episodes.size(shift(0, 60, **change)) == expected


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (shift(20, 80), "for 60 s from 06:47:00 UTC"),
        (shift(20, 100, shape="change"), "since 06:47:00 UTC"),
        (shift(0, 20, shape="change"), "until 06:47:00 UTC"),
    ],
)
def test_it_says_since_when(row: dict[str, Any], expected: str) -> None:
    assert episodes.when(row, START, START + 100 * S) == expected


def test_long_captures_say_the_day() -> None:
    said = episodes.when(shift(20, 80), START, START + 100_000 * S)
    assert said == "for 60 s from 2026-11-23 06:47:00 UTC"


@pytest.mark.parametrize("attributes", ["{broken", "[1]", "null", '{"a.b": 1, "c": "x"}'])
def test_attributes_of_any_shape_are_named(attributes: str) -> None:
    row = shift(0, 60, **CPU, attributes=attributes, instance="vm")
    assert episodes.name(row).startswith("system.cpu.utilization")
