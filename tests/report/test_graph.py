"""The dependency graph: callers are left of what they call, and no two boxes overlap."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from perfkit import units
from perfkit.report import graph
from perfkit.report.context import Context
from perfkit.report.graph import Edge, Layout, Node
from perfkit.report.sections import dependencies
from tests.report.build import open_tables
from tests.report.incident import write_incident

NAMES = "abcdefgh"


def placed(pairs: list[tuple[str, str]], roots: str = "a") -> Layout:
    names = dict.fromkeys(name for pair in pairs for name in pair)
    edges = [Edge(source, target, 1.0 + at) for at, (source, target) in enumerate(pairs)]
    return graph.place([Node(name, 1.0) for name in names], edges, list(roots))


def test_what_is_called_by_two_stands_right_of_both() -> None:
    layout = placed([("a", "b"), ("b", "c"), ("a", "c")])
    assert [layout.nodes[name].layer for name in "abc"] == [0, 1, 2]
    assert not any(edge.back for edge in layout.edges)


def test_one_edge_of_a_circle_goes_back() -> None:
    layout = placed([("a", "b"), ("b", "c"), ("c", "b")])
    assert [edge.back for edge in layout.edges] == [False, False, True]


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=30).map(
        lambda pairs: [pair for pair in dict.fromkeys(pairs) if pair[0] != pair[1]]
    )
)
def test_any_graph_has_room(pairs: list[tuple[str, str]]) -> None:
    layout = placed(pairs, roots="ab")
    boxes = list(layout.nodes.values())
    for edge in layout.edges:
        source, target = layout.nodes[edge.source], layout.nodes[edge.target]
        assert edge.back or source.layer < target.layer
        assert target.y <= edge.y <= target.y + target.height
    for at, one in enumerate(boxes):
        assert 0 <= one.x <= layout.width - graph.WIDTH
        assert 0 <= one.y <= layout.height - one.height
        for other in boxes[at + 1 :]:
            apart = one.y + one.height < other.y or other.y + other.height < one.y
            assert one.x != other.x or apart


def test_arrows_carry_the_time_of_the_calls(tmp_path: Path) -> None:
    tables = open_tables(write_incident(tmp_path / "a.perfkit", seconds=30, rate=10))
    built = dependencies.build(Context(tables, [], ""))
    calls = tables.frame("tree").filter(pl.col("category").is_in(["database", "client"]))
    expected: dict[tuple[str, str], int] = {}
    for row in calls.to_dicts():
        key = (row["service"], row["component"])
        expected[key] = expected.get(key, 0) + row["duration_ns"]
    found = {(edge["source"], edge["target"]): edge["label"] for edge in built["edges"]}
    for key, total_ns in expected.items():
        assert found[key].startswith(f"{units.duration(total_ns)} · ")
    assert set(found) == {*expected, ("requests", "gateway")}
    kinds = {node["name"]: node["kind"] for node in built["nodes"]}
    assert kinds == {
        "requests": "callers",
        "gateway": "service",
        "stock": "service",
        "db.internal:5432": "database",
    }
