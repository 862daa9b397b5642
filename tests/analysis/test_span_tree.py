from __future__ import annotations

from typing import Any

from hypothesis import given

from tests.analysis.build import S, analyse, traces


@given(traces(damaged=True))
def test_one_node_is_one_path_of_labels(spans: list[S]) -> None:
    # Few names, so that paths meet.
    for span in spans:
        span.columns["name"] = f"n{span.id % 2}"
    tables = analyse(spans)
    rows = tables.frame("tree").to_dicts()
    times = tables.frame("span_times").to_dicts()

    def path(row: dict[str, Any]) -> tuple[tuple[str, ...], ...]:
        label = (row["name"], row["service"], row["category"])
        if row["row"] == row["entry_row"]:
            return (label,)
        return (*path(rows[row["parent_row"]]), label)

    expected: dict[tuple[tuple[str, ...], ...], list[dict[str, Any]]] = {}
    for row in rows:
        if row["entry_row"] is not None:
            expected.setdefault(path(row), []).append(row)
    nodes = tables.frame("span_tree").to_dicts()
    node_of = dict(tables.frame("span_tree_rows").iter_rows())
    assert sorted(node_of) == [row["row"] for row in rows if row["entry_row"] is not None]
    assert len(nodes) == len(expected)
    for labels, members in expected.items():
        (number,) = {node_of[row["row"]] for row in members}
        node = nodes[number]
        assert node["node_id"] == number
        assert (node["label"], node["service"], node["category"]) == labels[-1]
        assert node["depth"] == len(labels) - 1
        if node["parent_id"] is None:
            assert len(labels) == 1
        else:
            assert node["parent_id"] < number
            above = next(iter(expected[labels[:-1]]))
            assert node["parent_id"] == node_of[above["row"]]

        def total(values: list[float], members: list[dict[str, Any]] = members) -> float:
            weights = [row["adjusted_count"] for row in members]
            return sum(value * weight for value, weight in zip(values, weights, strict=True))

        own = [times[row["row"]] for row in members]
        assert node["count"] == total([1] * len(members))
        assert node["total_ns"] == total([row["duration_ns"] for row in members])
        assert node["self_ns"] == total([one["self_ns"] + one["gap_ns"] for one in own])
        assert node["critical_ns"] == total([one["critical_ns"] for one in own])


def test_requests_are_labelled_with_their_endpoint() -> None:
    spans = [S(1, 0, 9, kind="server", endpoint="GET /a", name="GET"), S(2, 1, 2, 1)]
    assert analyse(spans).frame("span_tree")["label"].to_list() == ["GET /a", "s2"]


def test_no_spans_give_all_columns() -> None:
    for name in ("span_tree", "span_tree_rows"):
        assert analyse([]).frame(name).schema == analyse([S(1, 0, 9)]).frame(name).schema
