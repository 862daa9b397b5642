from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.analysis.vector import forest
from perfkit.analysis.vector.depth_first import depth_first, marked_above
from perfkit.analysis.vector.forest import Ints


@st.composite
def forests(draw: st.DrawFn) -> list[int]:
    """Parents without cycles, in any order of indices."""
    count = draw(st.integers(0, 12))
    ordered = [draw(st.integers(-1, node - 1)) for node in range(count)]
    names = draw(st.permutations(range(count)))
    parents = [0] * count
    for node, parent in enumerate(ordered):
        parents[names[node]] = names[parent] if parent >= 0 else -1
    return parents


def array(values: list[int]) -> Ints:
    return np.array(values, dtype=np.int64)


def path(parent: list[int], node: int) -> list[int]:
    """List a node and its ancestors."""
    nodes = [node]
    while parent[nodes[-1]] >= 0:
        nodes.append(parent[nodes[-1]])
    return nodes


@given(forests(), st.randoms())
def test_values_along_the_path(parent: list[int], random: object) -> None:
    values = [node * 7 % 5 for node in range(len(parent))]
    summed = forest.along_path(array(parent), array(values), np.add, 0)
    largest = forest.along_path(array(parent), array(values), np.maximum, -1)
    for node in range(len(parent)):
        above = path(parent, node)
        assert summed[node] == sum(values[one] for one in above)
        assert largest[node] == max(values[one] for one in above)


@given(forests(), st.data())
def test_nearest_marked(parent: list[int], data: st.DataObject) -> None:
    size = len(parent)
    flags = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)), dtype=bool)
    nearest = forest.nearest_marked(array(parent), flags)
    for node in range(size):
        above = path(parent, node)
        assert nearest[node] == next((one for one in above if flags[one]), -1)


@given(forests(), st.data())
def test_depth_first_order(parent: list[int], data: st.DataObject) -> None:
    size = len(parent)
    start = data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    flags = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    expected: list[int] = []

    def visit(node: int) -> None:
        below = sorted((start[one], one) for one in range(size) if parent[one] == node)
        for _, one in below:
            expected.append(one)
            visit(one)

    visit(-1)
    order, sizes = depth_first(array(parent), array(start))
    assert order.tolist() == expected
    marked = marked_above(np.array(flags, dtype=bool)[order], sizes)
    for row, node in enumerate(expected):
        assert sizes[row] == sum(node in path(parent, one) for one in range(size))
        assert marked[row] == sum(flags[one] for one in path(parent, node))


@given(forests())
def test_subtrees_and_preorder(parent: list[int]) -> None:
    below = [
        [one for one in range(len(parent)) if node in path(parent, one)]
        for node in range(len(parent))
    ]
    values = array([node * 5 % 7 for node in range(len(parent))])
    position, sizes = forest.preorder(array(parent))
    largest = forest.subtree_maxima(array(parent), values)
    assert sorted(position) == list(range(len(parent)))
    for node in range(len(parent)):
        assert sizes[node] == len(below[node])
        assert largest[node] == max(values[one] for one in below[node])
        places = sorted(position[one] for one in below[node])
        assert places == list(range(position[node], position[node] + len(below[node])))
        siblings = [one for one in range(len(parent)) if parent[one] == parent[node]]
        assert [position[one] for one in siblings] == sorted(position[one] for one in siblings)


@given(
    st.integers(1, 12).flatmap(lambda n: st.lists(st.integers(-1, n - 1), min_size=n, max_size=n))
)
def test_cycles_are_cut_at_their_lowest_node(parent: list[int]) -> None:
    mended, roots = forest.cut_cycles(array(parent))
    expected = set()
    for node in range(len(parent)):
        seen = [node]
        while parent[seen[-1]] >= 0 and parent[seen[-1]] not in seen:
            seen.append(parent[seen[-1]])
        if parent[seen[-1]] >= 0:
            expected.add(min(seen[seen.index(parent[seen[-1]]) :]))
    assert set(roots) == expected
    assert [-1 if node in expected else parent[node] for node in range(len(parent))] == list(mended)


@given(forests(), st.data())
def test_marked_chains(following: list[int], data: st.DataObject) -> None:
    nodes = st.integers(0, max(len(following) - 1, 0))
    start = data.draw(st.lists(nodes, max_size=3)) if following else []
    expected = {one for node in start for one in path(following, node)}
    assert set(np.flatnonzero(forest.marked_chains(array(following), array(start)))) == expected


def deepest(parent: Ints) -> int:
    """Return how many ancestors the last node has."""
    return int(forest.along_path(parent, (parent >= 0).astype(np.int64), np.add, 0)[-1])


@pytest.mark.parametrize("size", [1, 100_000])
def test_a_deep_chain_and_a_wide_family(size: int) -> None:
    chain = np.arange(size) - 1
    assert deepest(chain) == size - 1
    assert forest.subtree_sizes(chain)[0] == size
    family = np.append(-1, np.zeros(size, dtype=np.int64))
    assert forest.preorder(family)[0].tolist() == list(range(size + 1))
    mended, roots = forest.cut_cycles(np.roll(np.arange(size), 1))
    assert roots.tolist() == [0]
    assert deepest(mended) == size - 1
