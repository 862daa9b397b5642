"""Parts that were recorded one after the other are shards where they are."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.shapes import requests
from perfkit import model
from perfkit.analysis import in_order
from perfkit.analysis.filters import Filters
from perfkit.analysis.session import Tables
from perfkit.analysis.sharded import Division, ShardedTables, open_tables
from perfkit.capture import Capture, CaptureWriter
from perfkit.engine import Here
from perfkit.parts import conform
from tests.analysis.build import S, span_columns
from tests.analysis.test_sharded import QUICK, assert_equal, many, spans_of_many_traces


def written(path: Path, parts: list[pl.DataFrame]) -> Capture:
    with CaptureWriter(path) as writer:
        for part in parts:
            writer.append("spans", part)
            writer.flush()
    return Capture.open(path)


@pytest.mark.slow
@settings(max_examples=4, deadline=None, phases=QUICK)
@given(many, st.data())
def test_every_table_is_that_of_the_capture_in_one_piece(
    lists: list[list[S]], data: st.DataObject
) -> None:
    spans = conform(model.SPANS, span_columns(spans_of_many_traces(lists)))
    place = data.draw(st.lists(st.integers(0, 2), min_size=spans.height, max_size=spans.height))
    parts = [
        spans.filter(pl.Series([at == one for at in place], dtype=pl.Boolean)) for one in range(3)
    ]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_order, "_MOST_TORN", 1.0)
        capture = written(Path(folder) / "parts.perfkit", [part for part in parts if part.height])
        plan = in_order.plan(capture, max(part.height for part in parts) - 1 or 1)
        if plan is None:
            return
        tables = ShardedTables(Division(capture, Here(), plan.count, plan))
        assert_equal(Tables(capture), tables)
        tables.close()


@pytest.mark.slow
def test_only_traces_that_are_in_two_shards_are_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Cut in the middle of a request of eight spans.
    parts = [requests(0, 1003), requests(1003, 1000), requests(2003, 997)]
    capture = written(tmp_path / "a.perfkit", parts)
    plan = in_order.plan(capture, 1000)
    assert plan is not None
    assert (len(plan.groups), len(plan.torn), plan.count) == (3, 2, 4)
    files = in_order.files_of(plan, list(model.SPANS.schema), tmp_path / "input")
    copied = [file for shard in files for file in shard if isinstance(file, Path)]
    assert sum(pl.read_parquet(file).height for file in copied) < 300
    assert sum(pl.read_parquet(file).height for file in files[-1]) == 16
    monkeypatch.setattr("perfkit.analysis.sharded.SHARD_SPANS", 1000)
    tables = open_tables(capture, Filters(), "shards")
    assert isinstance(tables, ShardedTables)
    assert tables.described == "4 shards by trace, in this process"
    assert_equal(Tables(capture), tables)
    tables.close()


def test_parts_in_no_order_are_no_shards(tmp_path: Path) -> None:
    spans = requests(0, 3000)
    mixed = spans[np.random.default_rng(1).permutation(3000)]
    capture = written(tmp_path / "a.perfkit", [mixed[:1000], mixed[1000:2000], mixed[2000:]])
    assert in_order.plan(capture, 1000) is None
