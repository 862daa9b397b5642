"""Every derived table on every damaged or extreme shape: no error, no overflow, sums that fit."""

from __future__ import annotations

import functools

import polars as pl
import pytest
from polars import selectors

from perfkit.analysis import DERIVED
from perfkit.analysis.session import Tables
from perfkit.sql.execute import ONE_PER_SPAN
from tests.analysis import hostile

SIZE = 1_400
"""More than the depth of Python's stack."""


@functools.cache
def tables(shape: str) -> Tables:
    return Tables(hostile.capture(shape, SIZE))


@functools.cache
def schema(name: str) -> pl.Schema:
    return tables("nothing").frame(name).schema


# One test for all tables of a shape: each of them computes what the next ones need.
@pytest.mark.slow
@pytest.mark.parametrize("shape", [*hostile.SPANS, *hostile.OTHERS])
def test_every_table_of_every_shape(shape: str) -> None:
    for derived in DERIVED:
        frame = tables(shape).frame(derived.name)
        assert frame.schema == schema(derived.name), derived.name
        _assert_plausible(frame, derived.name)
    for name in ONE_PER_SPAN:
        row = tables(shape).frame(name)["row"]
        assert row.null_count() == 0, name
        assert row.n_unique() == row.len(), name


def _assert_plausible(frame: pl.DataFrame, name: str) -> None:
    for column in frame.select(selectors.float()):
        assert column.is_finite().fill_null(True).all(), f"{name}.{column.name} is no number"
    # Lengths, counts and ratios are never negative; moments and corrections of skew may be.
    measures = frame.select(
        selectors.matches("(_ns|_ratio|_bytes|count|calls|errors)$")
        - selectors.matches("^(skew|start|end|ts|bucket)_ns$")
    ).select(selectors.numeric())
    for column in measures:
        assert (column.drop_nulls() >= 0).all(), f"{name}.{column.name}"


@pytest.mark.parametrize("shape", [*hostile.SPANS, *hostile.OTHERS])
def test_times_add_up(shape: str) -> None:
    found = tables(shape)
    tree = found.frame("tree")
    times, drag = found.frame("span_times"), found.frame("span_drag")
    assert times.height == drag.height == tree.height
    entries = tree.filter(pl.col("row") == pl.col("entry_row"))
    # Times may add up to more than an integer holds.
    critical = times["critical_ns"].to_list()
    assert sum(critical) == sum(entries["duration_ns"].to_list())
    own = (times["self_ns"] + times["gap_ns"]).to_list()
    lengths = tree["duration_ns"].to_list()
    assert all(0 <= one <= length for one, length in zip(own, lengths, strict=True))
    assert all(cost <= length for cost, length in zip(drag["drag_ns"], lengths, strict=True))
    # Everything is somewhere: at a root, or below a row before it whose subtree holds it.
    parent, size = tree["parent_row"].to_list(), tree["subtree"].to_list()
    for row, above in enumerate(parent):
        assert above is None or above < row < row + size[row] <= above + size[above]
