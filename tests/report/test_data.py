"""The columns that the page gets hold what the tables hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from perfkit.analysis.session import Tables
from perfkit.report.context import Context
from perfkit.report.pack import pack
from perfkit.report.sections import flame_code, flame_requests, slow_queries, slow_requests
from tests.report.build import MS, THREADS, open_tables
from tests.report.page import Page
from tests.report.unpack import unpack


def test_cells_sum_to_the_tree(page: Page, tables: Tables) -> None:
    data = page.data["flame_requests"]
    tree = tables.frame("span_tree")
    assert not data["coarse"]
    cells = data["cells"]
    for name, column in (
        ("total_ns", "total_ns"),
        ("self_ns", "self_ns"),
        ("critical_ns", "critical_ns"),
        ("count", "count"),
    ):
        sums = np.bincount(cells["node"], cells[name], minlength=tree.height)
        assert sums.tolist() == tree[column].to_list()
    labels = [data["tree"]["strings"][label] for label in data["tree"]["label"]]
    assert labels == tree["label"].to_list()


def test_cells_of_one_tool_are_those_of_its_requests(page: Page, tables: Tables) -> None:
    data = page.data["flame_requests"]
    groups, cells = data["groups"], data["cells"]
    search = groups["strings"].index("search")
    chosen = (groups["tool"] == search)[cells["group"]]
    by_label: dict[str, float] = {}
    for node, self_ns in zip(cells["node"][chosen], cells["self_ns"][chosen], strict=True):
        label = data["tree"]["strings"][data["tree"]["label"][node]]
        by_label[label] = by_label.get(label, 0) + float(self_ns)
    expected = (
        tables["tree"]
        .filter(pl.col("entry_tool") == "search")
        .join(tables["span_times"], on="row")
        .group_by("name")
        .agg(pl.col("self_ns").sum())
        .collect()
    )
    assert by_label == {name: float(value) for name, value in expected.iter_rows()}


def test_coarse_cells_keep_every_sum(capture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = unpack(pack(flame_requests.build(context(capture))["data"]))
    monkeypatch.setattr(flame_requests, "EXACT_CELLS", 60)
    built = flame_requests.build(context(capture))
    coarse = unpack(pack(built["data"]))
    assert coarse["coarse"]
    assert len(coarse["cells"]["node"]) <= 60
    assert coarse["groups"]["weight"].sum() == len(exact["groups"]["start_ns"])
    # Every request finds its bin: one of its own endpoint and status, and each bin its requests.
    of_request = coarse["groups"]["of_request"]
    assert np.bincount(of_request).tolist() == coarse["groups"]["weight"].tolist()
    for name in ("endpoint", "tool", "status"):
        assert coarse["groups"][name][of_request].tolist() == exact["groups"][name].tolist()
    for name in ("total_ns", "self_ns", "critical_ns", "count", "errors"):
        sums = [
            np.bincount(
                data["cells"]["node"], data["cells"][name], minlength=len(data["tree"]["label"])
            )
            for data in (exact, coarse)
        ]
        assert sums[0].tolist() == sums[1].tolist()
    for name in ("endpoint", "tool", "status"):
        assert set(coarse["groups"][name].tolist()) == set(exact["groups"][name].tolist())


def context(path: Path) -> Context:
    return Context(open_tables(path), [], "t")


def test_samples_sum_to_the_code_tree(page: Page, tables: Tables) -> None:
    data = page.data["flame_code"]
    samples = data["samples"]
    tree = tables.frame("code_tree")
    sums = np.bincount(samples["stack"], samples["duration"], minlength=tree.height)
    assert sums.tolist() == tree["self_ns"].to_list()
    assert sorted(data["threads"]) == [f"worker-{i} ({tid})" for i, tid in enumerate(THREADS)]
    assert set(samples["state"].tolist()) == {1, 2}
    assert (np.diff(samples["start_ns"]) >= 0).all()


def test_samples_name_the_request_that_ran(page: Page) -> None:
    samples = page.data["flame_code"]["samples"]
    requests = page.data["slow_requests"]["requests"]
    inside = samples["entry"] >= 0
    assert inside.any()
    entry = samples["entry"][inside]
    start, duration = samples["start_ns"][inside], samples["duration"][inside]
    assert (start >= requests["start_ns"][entry]).all()
    assert (start + duration <= (requests["start_ns"] + requests["duration_ns"])[entry]).all()


def test_too_many_samples_are_merged_and_marked(
    capture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = unpack(pack(flame_code.build(context(capture))["data"]))
    monkeypatch.setattr(flame_code, "EXACT_SAMPLES", 10)
    monkeypatch.setattr(flame_code, "_COARSE_BUCKETS", 3)
    coarse = unpack(pack(flame_code.build(context(capture))["data"]))
    assert coarse["coarse"]
    assert len(coarse["samples"]["stack"]) < len(exact["samples"]["stack"])
    nodes = len(exact["tree"]["label"])
    sums = [
        np.bincount(d["samples"]["stack"], d["samples"]["duration"], nodes) for d in (exact, coarse)
    ]
    assert sums[0].tolist() == sums[1].tolist()


def test_details_hold_the_spans_of_their_request(page: Page, tables: Tables) -> None:
    data = page.data["slow_requests"]
    details, spans = data["details"], data["details"]["spans"]
    assert details["dropped"].sum() == 0
    assert len(details["first"]) == len(details["request"]) + 1
    durations = data["requests"]["duration_ns"][details["request"]]
    assert (np.diff(durations.astype(np.int64)) <= 0).all()
    for detail, (low, high) in enumerate(zip(details["first"], details["first"][1:], strict=False)):
        parents = spans["parent"][low:high].tolist()
        assert parents.count(-1) == 1
        assert all(-1 <= parent < high - low for parent in parents)
        root = low + parents.index(-1)
        assert spans["start_ns"][root] == 0
        assert spans["duration_ns"][root] == durations[detail]
        first, last = details["critical"]["first"][detail : detail + 2]
        critical = slice(first, last)
        length = details["critical"]["end_ns"][critical] - details["critical"]["start_ns"][critical]
        assert length.sum() == durations[detail]
        assert (details["critical"]["span"][critical] < high - low).all()
    attributes = [json.loads(spans["strings"][i]) for i in spans["attributes"] if i >= 0]
    assert any(found.get("password") == "[masked]" and "user.id" in found for found in attributes)
    assert any(found.get("peer") == "search.internal:9200" for found in attributes)


def test_details_show_the_code_that_ran(page: Page) -> None:
    details = page.data["slow_requests"]["details"]
    code, strings = details["code"], details["spans"]["strings"]
    low, high = code["first"][:2]
    seen = {strings[code["label"][i]]: code["duration_ns"][i] for i in range(low, high)}
    assert "serialise (json_out.py:7)" in seen
    assert "handle (app.py:40) → do_execute" in seen


def test_long_requests_keep_their_longest_spans(
    capture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perfkit.report import request_details

    monkeypatch.setattr(request_details, "MAX_SPANS", 4)
    details = unpack(pack(slow_requests.build(context(capture))["data"]))["details"]
    assert details["dropped"].max() > 0
    kept = np.diff(details["first"])
    assert kept.max() <= 4 + 3  # and their parents
    names = [details["spans"]["strings"][i] for i in details["spans"]["name"]]
    assert "tool search" in names
    assert "POST /tools/invoke" in names


def test_chosen_requests_are_the_slowest_and_some_of_each_endpoint() -> None:
    entries = pl.DataFrame(
        {
            "index": range(300),
            "duration_ns": [1000 - number for number in range(300)],
            "endpoint": ["a"] * 290 + ["b"] * 10,
        }
    )
    chosen = slow_requests.choose(entries, ["a", "b"])
    assert chosen["index"].to_list() == [*range(200), *range(290, 295)]


def test_calls_of_queries_sum_to_the_table(page: Page, tables: Tables) -> None:
    calls = page.data["slow_queries"]["calls"]
    queries = tables.frame("queries").sort(["total_ns", "query_id"], descending=[True, False])
    sums = np.bincount(calls["query"], calls["duration_ns"], minlength=queries.height)
    assert sums.tolist() == queries["total_ns"].to_list()
    assert "repeated 8×" in page.words


def test_too_many_calls_are_left_out(capture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_queries, "_EXACT_CALLS", 10)
    assert "data" not in slow_queries.build(context(capture))


def test_rows_of_the_bottleneck_tables_know_their_nodes(page: Page, tables: Tables) -> None:
    cells = page.data["flame_requests"]["cells"]
    of_node = page.data["bottlenecks"]["operations"]
    rows = of_node[cells["node"]]
    sums = np.bincount(rows[rows >= 0], cells["critical_ns"][rows >= 0])
    ranked = tables.frame("operations").sort(
        "critical_ns", descending=True, nulls_last=True, maintain_order=True
    )
    assert sums.tolist() == ranked["critical_ns"].to_list()


def test_heatmaps_have_a_row_for_each_core(page: Page) -> None:
    panels = {panel["id"]: panel for panel in page.data["heatmaps"]["panels"]}
    assert list(panels) == ["cores", "processes", "memory"]
    cores = panels["cores"]
    assert cores["rows"] == ["core 0", "core 1"]
    values = cores["values"].reshape(2, cores["columns"])
    assert np.nanmax(values[0]) == np.nanmin(values[0]) == 0.25
    assert np.nanmax(values[1]) == 0.75


def test_without_sampling_no_weights_are_sent(page: Page) -> None:
    assert "weight" not in page.data["slow_requests"]["requests"]


def test_times_are_relative_to_the_start(page: Page) -> None:
    requests = page.data["slow_requests"]["requests"]
    assert requests["start_ns"].min() == 0
    assert page.data["page"]["start_unix_ms"] == 1_795_416_395_000
    assert requests["start_ns"].max() + 40 * MS <= page.data["page"]["duration_ns"]
