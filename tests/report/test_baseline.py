"""A report against a baseline: joined trees, sums, what is said of each difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.comparison.headline import RESOURCES
from perfkit.capture import CaptureWriter
from perfkit.report import baseline
from perfkit.report.render import build
from tests.report.build import MS, START, S, add_metrics, open_tables, spans, write_capture
from tests.report.page import Page

_PATHS = st.sets(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(tuple), min_size=1, max_size=12
)


def tree_of(paths: set[tuple[str, ...]]) -> pl.DataFrame:
    """Return the tree of paths and all that is above them, parents first."""
    every = sorted({path[:n] for path in paths for n in range(1, len(path) + 1)})
    place = {path: i for i, path in enumerate(every)}
    return pl.DataFrame(
        {
            "node_id": range(len(every)),
            "parent_id": [place.get(path[:-1]) for path in every],
            "depth": [len(path) - 1 for path in every],
            "label": [path[-1] for path in every],
        },
        schema_overrides={"node_id": pl.Int64, "parent_id": pl.Int64, "depth": pl.Int64},
    )


def paths_of(tree: pl.DataFrame) -> list[tuple[str, ...]]:
    paths: list[tuple[str, ...]] = []
    for row in tree.iter_rows(named=True):
        above = () if row["parent_id"] is None else paths[row["parent_id"]]
        paths.append((*above, row["label"]))
    return paths


@given(st.lists(_PATHS, min_size=1, max_size=3))
def test_joined_trees_hold_every_path_once_and_know_where_each_went(
    sets: list[set[tuple[str, ...]]],
) -> None:
    trees = [tree_of(paths) for paths in sets]
    joined = baseline.joined(trees, ["label"])
    paths = paths_of(joined.nodes)
    assert len(paths) == len(set(paths))
    assert set(paths) == {path for tree in trees for path in paths_of(tree)}
    for tree, ids in zip(trees, joined.node_ids, strict=True):
        assert [paths[i] for i in ids] == paths_of(tree)


def write(path: Path, change: Any, requests: int = 200) -> Path:
    rows = [one for row in spans(requests, None) if (one := change(dict(row))) is not None]
    with CaptureWriter(path, command=["perfkit"]) as writer:
        writer.append("spans", {name: [row.get(name) for row in rows] for name in rows[0]})
        add_metrics(writer, max(row["start_ns"] + row["duration_ns"] - START for row in rows) / S)
    return path


def twice_as_long(row: dict[str, Any]) -> dict[str, Any]:
    start = row["start_ns"] - START
    return row | {"start_ns": START + 2 * start, "duration_ns": 2 * row["duration_ns"]}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Page]:
    folder = tmp_path_factory.mktemp("baseline")
    columns = {key for row in spans(3, None) for key in row}
    same = write(folder / "same.perfkit", lambda row: dict.fromkeys(columns) | row)
    slow = write(folder / "slow.perfkit", lambda row: twice_as_long(dict.fromkeys(columns) | row))
    made = {}
    for name, path in (("same", same), ("slow", slow)):
        tables = open_tables(path)
        read = baseline.read([open_tables(same)], [tables])
        page = build(tables, [], title=name, baseline=read)
        assert page.failed == []
        made[name] = Page(page.html)
    return made


@pytest.mark.slow
def test_a_capture_against_itself_shows_no_change(pages: dict[str, Page]) -> None:
    words = pages["same"].words
    assert "No evidence of change in requests" in words
    verdicts = [row.get("data-verdict") for row in pages["same"].all("tr")]
    assert {"grew", "shrank", "new", "went"}.isdisjoint(verdicts)
    deltas = [one for one in pages["same"].all("div") if one.get("data-delta")]
    assert {one["data-delta"] for one in deltas} >= {"p50_ns", "p95_ns", "error_ratio"}


def test_where_nothing_changed_no_other_figure_stands_beside_the_tile(
    pages: dict[str, Page],
) -> None:
    (same,) = [one for one in pages["same"].all("div") if one.get("data-delta") == "p50_ns"]
    assert "→" in str(same["title"])
    assert "mean of blocks" not in pages["same"].words


def test_a_change_says_of_what_it_is_the_mean(pages: dict[str, Page]) -> None:
    deltas = {
        one["data-delta"]: one["title"] for one in pages["same"].all("div") if one.get("data-delta")
    }
    resources = deltas.keys() & RESOURCES.keys()
    assert resources
    for measure, title in deltas.items():
        # Mean CPU and highest memory are those of the whole side; p99 has too few requests.
        whole = measure in resources or "not tested" in title or measure == "p99_ns"
        assert ("mean of blocks" in title) != whole, measure


def test_what_takes_twice_as_long_grew_and_the_headline_says_so(pages: dict[str, Page]) -> None:
    page = pages["slow"]
    assert "Changed: POST /tools/invoke" in page.words
    verdicts = [row.get("data-verdict") for row in page.all("tr")]
    assert "grew" in verdicts
    assert "+100 %" in page.words


def test_the_page_gets_the_baselines_sums_in_the_joined_tree(pages: dict[str, Page]) -> None:
    for page in pages.values():
        requests = page.data["comparison"]["requests"]
        cells, tree = requests["cells"], requests["tree"]
        roots = np.asarray(tree["parent"])[np.asarray(cells["node"])] < 0
        total = np.asarray(cells["total_ns"])[roots].sum()
        entries = [row for row in spans(200, None) if row["parent_id"] is None]
        assert total == sum(row["duration_ns"] for row in entries)
        # Both captures have the same operations: the joined tree is no larger.
        assert len(tree["label"]) == len(requests["map"])
        assert set(requests["groups"]["block"].tolist()) == set(range(10))


def test_samples_of_both_sides_meet_in_one_tree_of_code(tmp_path: Path) -> None:
    one, other = (write_capture(tmp_path / f"{n}.perfkit", requests=n) for n in (60, 90))
    tables = open_tables(one)
    read = baseline.read([open_tables(other)], [tables])
    page = build(tables, [], title="code", baseline=read)
    assert page.failed == []
    code = Page(page.html).data["comparison"]["code"]
    samples = open_tables(other).frame("ordered_samples")
    assert int(np.asarray(code["cells"]["duration"]).sum()) == samples["duration_ns"].sum()


@pytest.mark.parametrize("lacking", ["with_spans", "with_samples"])
def test_a_baseline_of_other_things_is_no_failure(tmp_path: Path, lacking: str) -> None:
    tables = open_tables(write_capture(tmp_path / "now.perfkit"))
    before = open_tables(write_capture(tmp_path / "before.perfkit", **{lacking: False}))
    read = baseline.read([before], [tables])
    page = build(tables, [], title="half", baseline=read)
    assert page.failed == []
    data = Page(page.html).data["comparison"]
    assert ("requests" in data) != (lacking == "with_spans")
    assert ("code" in data) != (lacking == "with_samples")


def test_seconds_of_runs_are_those_of_the_blocks(tmp_path: Path) -> None:
    tables = open_tables(write_capture(tmp_path / "now.perfkit"))
    read = baseline.read([tables], [tables])
    entries = tables.frame("requests").filter("entry")
    span = entries["start_ns"].max() - entries["start_ns"].min()
    rate = read.headline["rate_per_s"]
    per_block = entries.height / 10
    assert rate["before"] == pytest.approx(per_block / ((span // 10 + 1) / S), rel=0.05)
    assert span > MS
