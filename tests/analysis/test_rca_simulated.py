"""The simulated faults are what their labels say, and the same in every run."""

from __future__ import annotations

import polars as pl
import pytest

from bench.rca_simulated import FAULTS, Case, cases


@pytest.fixture(scope="module")
def some() -> list[Case]:
    found, each = [], cases()
    for case in each:
        found.append(case)
        if len({one.fault["type"] for one in found}) == len(FAULTS):
            break
    return found


def test_they_are_the_same_again(some: list[Case]) -> None:
    again = next(cases())
    assert again.fault == some[0].fault
    assert again.before.equals(some[0].before)
    assert again.during.equals(some[0].during)


def test_the_faulty_service_has_spans_on_both_sides(some: list[Case]) -> None:
    for case in some:
        for side in (case.before, case.during):
            assert side.filter(service=case.fault["service"]).height > 0


def test_spans_fail_only_where_the_fault_is_an_exception(some: list[Case]) -> None:
    for case in some:
        failed = [side.filter(status="error").height for side in (case.before, case.during)]
        assert failed[0] == 0
        assert (failed[1] > 0) == (case.fault["type"] == "exception")


def test_cpu_contention_lengthens_the_leaves_of_its_service(some: list[Case]) -> None:
    case = next(one for one in some if one.fault["type"] == "cpu")
    mine = pl.col("service") == case.fault["service"]
    served = mine & (pl.col("span_kind") == "server")
    means = [
        side.filter(served).select((pl.col("end_ns") - pl.col("start_ns")).mean()).item()
        for side in (case.before, case.during)
    ]
    assert means[1] > means[0]
