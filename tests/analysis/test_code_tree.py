from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.code import code_tree
from perfkit.analysis.code.call_paths import CallPaths
from perfkit.stacks import Frame
from tests.analysis.sampled import FRAMES, Sample, sample_lists, tables

WAITS = "Condition.wait"


def slow_tree(samples: list[Sample]) -> dict[tuple[Frame, ...], dict[str, int]]:
    """Walk every sample up to its root and add to each path on the way."""
    nodes: dict[tuple[Frame, ...], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    woken = slow_wakeups(samples)
    for sample in samples:
        duration = sample.duration_ns or 0
        ran = duration if sample.state == "running" else 0
        woke = ran if sample.frames in woken else 0
        running = ran - woke
        unseen = sample.unseen_ns or 0
        waits = sample.frames[-1].function == WAITS
        unknown = duration if sample.state is None and not waits else 0
        count = 1 if sample.count is None else sample.count
        for length in range(1, len(sample.frames) + 1):
            node = nodes[sample.frames[:length]]
            node["total_ns"] += duration
            node["running_total_ns"] += running
            node["unknown_total_ns"] += unknown
            node["woken_total_ns"] += woke + unseen
            node["count"] += count
        node["self_ns"] += duration
        node["running_ns"] += running
        node["unknown_ns"] += unknown
        node["woken_ns"] += woke + unseen
        node["unseen_ns"] += unseen
        node["self_count"] += count
    return nodes


def slow_wakeups(samples: list[Sample]) -> set[tuple[Frame, ...]]:
    """Return the paths that end in a wait and of whose time (or whose function's) little ran."""
    waiting = [sample for sample in samples if sample.frames[-1].function == WAITS]

    def sums(chosen: list[Sample]) -> tuple[int, int, int]:
        known = [s.duration_ns or 0 for s in chosen if s.state is not None]
        ran = [s.duration_ns or 0 for s in chosen if s.state == "running"]
        seen = [1 if s.count is None else s.count for s in chosen]
        return sum(ran), sum(known), sum(seen)

    found = set()
    for path in {sample.frames for sample in waiting}:
        ran, known, seen = sums([sample for sample in waiting if sample.frames == path])
        whole_ran, whole_known, _ = sums(waiting)
        judged = (ran, known) if seen >= 10 else (whole_ran, whole_known)
        if ran and judged[0] < 0.3 * judged[1]:
            found.add(path)
    return found


def test_waking_up_is_told_from_polling() -> None:
    wait, poll = (FRAMES[0], FRAMES[3]), (FRAMES[1], FRAMES[3])
    assert FRAMES[3].function == WAITS
    made = [Sample(wait, i, 1, state="running" if i % 10 == 0 else "idle") for i in range(100)]
    made += [Sample(poll, i, 1, state="idle" if i % 10 == 0 else "running") for i in range(100)]
    tree = tables(made).frame("code_tree").filter(pl.col("function") == WAITS)
    assert sorted(tree.select("running_ns", "woken_ns").rows()) == [(0, 10), (90, 0)]


def test_a_path_seen_too_rarely_is_judged_by_its_function() -> None:
    wait, rare = (FRAMES[0], FRAMES[3]), (FRAMES[1], FRAMES[3])
    made = [Sample(wait, i, 1, state="running" if i % 10 == 0 else "idle") for i in range(100)]
    tree = tables([*made, Sample(rare, 100, 1, state="running")]).frame("code_tree")
    assert tree.filter(pl.col("function") == WAITS)["woken_ns"].sum() == 11


def path_of(tree: pl.DataFrame, node: int | None) -> tuple[Frame, ...]:
    if node is None:
        return ()
    row = tree.row(node, named=True)
    frame = Frame(row["function"], row["file"], row["line"])
    return (*path_of(tree, row["parent_id"]), frame)


@given(sample_lists())
def test_code_tree_equals_a_walk_over_every_sample(samples: list[Sample]) -> None:
    tree = tables(samples).frame("code_tree")
    expected = slow_tree(samples)
    assert tree.columns == list(code_tree.COLUMNS)
    assert tree.height == len(expected)
    timed = any(sample.duration_ns is not None for sample in samples)
    for row in tree.iter_rows(named=True):
        node = expected[path_of(tree, row["node_id"])]
        for name in code_tree.COLUMNS:
            if name.endswith("_ns"):
                assert row[name] == (node[name] if timed else None), name
            elif name in ("count", "self_count"):
                assert row[name] == node[name], name


@given(sample_lists(), st.sets(st.sampled_from(FRAMES)))
def test_what_an_import_calls_belongs_to_it(samples: list[Sample], importers: set[Frame]) -> None:
    importer = Frame("_find_and_load", "<frozen importlib._bootstrap>", 1)
    made = [
        replace(one, frames=tuple(importer if each in importers else each for each in one.frames))
        for one in samples
    ]
    tree = tables(made).frame("code_tree")
    for node, importing in enumerate(tree["importing"]):
        path = path_of(tree, node)
        assert importing == (importer in path)
        begun = [above for above in range(node + 1) if path_of(tree, above)[-1] == importer]
        above = [one for one in begun if path[: tree["depth"][one] + 1] == path_of(tree, one)]
        assert tree["import_id"][node] == (above[0] if above else None)


@given(sample_lists())
def test_nodes_are_numbered_depth_first(samples: list[Sample]) -> None:
    tree = tables(samples).frame("code_tree")
    assert tree["node_id"].to_list() == list(range(tree.height))
    paths = [path_of(tree, node) for node in range(tree.height)]
    for row in tree.iter_rows(named=True):
        parent = row["parent_id"]
        assert row["depth"] == (0 if parent is None else tree["depth"][parent] + 1)
        mine = paths[row["node_id"]]
        below = [node for node, path in enumerate(paths) if path[: len(mine)] == mine]
        assert below == list(range(row["node_id"], row["end_id"]))


def test_paths_without_samples_are_left_out() -> None:
    made = tables([Sample(FRAMES[:2], 0, 5), Sample((FRAMES[2],), 0, 5)])
    only_first = made["samples"].collect()[:1]
    made._frames["samples"] = only_first
    tree = made.frame("code_tree")
    assert tree["function"].to_list() == ["main", "main"]
    assert tree["parent_id"].to_list() == [None, 0]
    assert tree["end_id"].to_list() == [2, 2]


def test_an_empty_capture_has_an_empty_tree() -> None:
    tree = tables().frame("code_tree")
    assert tree.height == 0
    assert tree.columns == list(code_tree.COLUMNS)
    assert tree.schema["total_ns"] == pl.Int64


def test_a_stack_whose_parent_was_lost_becomes_a_root_and_circles_are_cut() -> None:
    made = tables([Sample(FRAMES[:3], 0, 5)])
    stacks = made["stacks"].collect()
    made._frames["stacks"] = stacks.filter(pl.col("depth") != 1)
    assert made.frame("code_tree")["depth"].to_list() == [0]
    made = tables([Sample(FRAMES[:3], 0, 5)])
    leaf = stacks.filter(pl.col("depth") == 2)["stack_id"][0]
    made._frames["stacks"] = stacks.with_columns(
        parent_id=pl.when(pl.col("depth") == 0).then(leaf).otherwise("parent_id")
    )
    assert made.frame("code_tree")["total_ns"].to_list() == [5, 5, 5]


def test_a_deep_recursion_is_one_long_path() -> None:
    deep = tuple(Frame("f", "/srv/app/f.py", line % 3) for line in range(5000))
    tree = tables([Sample(deep, 0, 7), Sample(deep[:2500], 7, 1)]).frame("code_tree")
    assert tree.height == 5000
    assert tree["total_ns"][0] == 8
    assert tree["total_ns"][4999] == 7


parents = st.lists(st.integers(-1, 40), max_size=40).map(
    lambda drawn: [min(parent, node - 1) for node, parent in enumerate(drawn)]
)


@given(parents, st.data())
def test_questions_about_a_tree(parent: list[int], data: st.DataObject) -> None:
    """Depth-first trees, from a list in which parents come first; compared with plain walks."""
    children: dict[int, list[int]] = defaultdict(list)
    for node, above in enumerate(parent):
        children[above].append(node)
    order: list[int] = []

    def visit(node: int) -> None:
        order.append(node)
        for child in children[node]:
            visit(child)

    for root in children[-1]:
        visit(root)
    place = {node: number for number, node in enumerate(order)}
    up = np.array([place[parent[n]] if parent[n] >= 0 else -1 for n in order], dtype=np.int64)
    chains = []
    for node in range(len(order)):
        chain = [node]
        while up[chain[-1]] >= 0:
            chain.append(int(up[chain[-1]]))
        chains.append(chain)
    end = np.array(
        [1 + max(m for m in range(len(order)) if n in chains[m]) for n in range(len(order))],
        dtype=np.int64,
    )
    tree = CallPaths(up, end)
    flags = np.array(data.draw(st.lists(st.booleans(), min_size=len(up), max_size=len(up))), bool)
    flagged = [[m for m in chain if flags[m]] for chain in chains]
    assert tree.depth().tolist() == [len(chain) - 1 for chain in chains]
    assert tree.under(flags).tolist() == [bool(f) for f in flagged]
    assert tree.innermost(flags).tolist() == [f[0] if f else -1 for f in flagged]
    assert tree.outermost(flags).tolist() == [f[-1] if f else -1 for f in flagged]
    assert tree.topmost(flags).tolist() == [f == [n] for n, f in enumerate(flagged)]
    towards = [
        chain[chain.index(f[-1]) - 1] if f and f[-1] != chain[0] else -1
        for chain, f in zip(chains, flagged, strict=True)
    ]
    assert tree.child_towards(tree.outermost(flags)).tolist() == towards


def test_real_stacks(shared_data: Path) -> None:
    """The collapsed stacks of a real gateway, summed line by line."""
    samples = []
    for text in (shared_data / "contextforge" / "pyspy-raw.txt").read_text().splitlines():
        stack, _, count = text.rpartition(" ")
        samples.append(
            Sample(tuple(Frame(name) for name in stack.split(";")), count=int(count), state=None)
        )
    tree = tables(samples).frame("code_tree")
    expected = slow_tree(samples)
    assert tree.height == len(expected)
    assert tree["self_count"].sum() == sum(sample.count or 0 for sample in samples)
    assert tree.filter(pl.col("depth") == 0)["count"].sum() == tree["self_count"].sum()
    assert tree["total_ns"].null_count() == tree.height
