from __future__ import annotations

from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from perfkit.report import population
from perfkit.report.pack import pack
from tests.report.unpack import unpack

ORIGIN = 1_795_416_395_000_000_000


def requests(rows: list[dict[str, Any]]) -> pl.DataFrame:
    defaults = {
        "entry": True,
        "service": "gateway",
        "endpoint": "GET /a",
        "tool": None,
        "status": "ok",
        "start_ns": ORIGIN,
        "duration_ns": 1_000_000,
        "adjusted_count": 1.0,
    }
    schema = {
        "request_row": pl.Int64,
        "entry": pl.Boolean,
        "service": pl.String,
        "endpoint": pl.String,
        "tool": pl.String,
        "status": pl.String,
        "start_ns": pl.Int64,
        "duration_ns": pl.Int64,
        "adjusted_count": pl.Float64,
    }
    filled = [{"request_row": number, **defaults, **row} for number, row in enumerate(rows)]
    return pl.DataFrame(filled, schema=schema)


def facts(start_ns: int | None = ORIGIN, end_ns: int | None = ORIGIN + 10**9) -> dict[str, Any]:
    return {"start_ns": start_ns, "end_ns": end_ns}


def test_ids_name_what_the_filter_bar_offers() -> None:
    found = population.read(
        requests(
            [
                {"endpoint": "GET /slow", "duration_ns": 9_000_000, "start_ns": ORIGIN + 5},
                {"endpoint": "GET /a", "tool": "search", "status": "error"},
                {"entry": False, "endpoint": "GET /inner"},
                {"endpoint": None, "service": None, "start_ns": ORIGIN + 9},
            ]
        ),
        facts(),
    )
    assert found.endpoints == ["GET /slow", "GET /a"]
    columns = unpack(pack(found.columns()))
    strings = columns["strings"]
    assert strings == ["GET /slow", "GET /a", "search", "gateway"]
    assert [strings[i] if i >= 0 else None for i in columns["endpoint"]] == [
        "GET /a",
        "GET /slow",
        None,
    ]
    assert [strings[i] if i >= 0 else None for i in columns["tool"]] == ["search", None, None]
    assert [strings[i] if i >= 0 else None for i in columns["service"]] == [
        "gateway",
        "gateway",
        None,
    ]
    assert columns["status"].tolist() == [1, 0, 0]
    assert columns["start_ns"].tolist() == [0.0, 5.0, 9.0]
    assert columns["duration_ns"].tolist() == [1_000_000, 9_000_000, 1_000_000]
    assert "weight" not in columns


def test_sampled_requests_carry_their_weight() -> None:
    found = population.read(requests([{"adjusted_count": 10.0}, {}]), facts())
    assert unpack(pack(found.columns()))["weight"].tolist() == [10.0, 1.0]


def test_an_empty_capture_has_no_requests_and_a_length() -> None:
    found = population.read(requests([]), facts(None, None))
    assert (found.origin_ns, found.endpoints, found.entries.height) == (0, [], 0)
    assert found.duration_ns >= 1
    assert unpack(pack(found.columns()))["start_ns"].tolist() == []


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "endpoint": st.sampled_from(["GET /a", "GET /b", None]),
                "tool": st.sampled_from(["search", None]),
                "status": st.sampled_from(["ok", "error"]),
                "start_ns": st.integers(ORIGIN, ORIGIN + 10**10),
                "duration_ns": st.integers(0, 10**10),
                "adjusted_count": st.sampled_from([1.0, 2.5]),
            }
        ),
        min_size=1,
        max_size=40,
    ),
    st.integers(1, 50),
)
def test_bins_hold_every_request_once(rows: list[dict[str, Any]], buckets: int) -> None:
    found = population.read(requests(rows), facts(ORIGIN, ORIGIN + 10**10))
    bins, of_entry = found.bins(buckets)
    assert bins["weight"].sum() == sum(row["adjusted_count"] for row in rows)
    assert of_entry["index"].sort().to_list() == list(range(len(rows)))
    joined = found.entries.join(of_entry, on="index").join(bins, on="bin", suffix="_bin")
    for row in joined.iter_rows(named=True):
        assert row["endpoint_id"] == row["endpoint_id_bin"]
        assert row["status_id"] == row["status_id_bin"]
        # One bin holds one octave of durations, so none is off by more than a factor of two.
        assert max(row["duration_ns"], 1) <= 2 * max(row["duration_ns_bin"], 1)
        assert row["duration_ns_bin"] <= 2 * max(row["duration_ns"], 1)
        assert abs(row["rel_ns"] - row["rel_ns_bin"]) <= found.duration_ns // buckets + 1
    assert bins["rel_ns"].is_sorted()
