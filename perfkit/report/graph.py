"""The layout of a dependency graph: callers left of what they call, no two boxes on each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import mean

WIDTH = 184
GAP_X = 136
GAP_Y = 22
LEAST_HEIGHT = 48
PORT = 20
"""Height of one arriving edge, with its label."""
MARGIN = 8
_LANE = 14
"""Height that an arrow takes in a layer that it only passes."""


@dataclass
class Node:
    """A box; `x` and `y` are its upper left corner."""

    name: str
    weight: float
    layer: int = 0
    x: float = 0.0
    y: float = 0.0
    height: float = LEAST_HEIGHT


@dataclass
class Edge:
    """An arrow between two boxes, by name; `y` is where it arrives, `start_y` where it leaves."""

    source: str
    target: str
    weight: float
    start_y: float = 0.0
    y: float = 0.0
    back: bool = False
    """Whether it goes from right to left, because calls go round in a circle."""
    via: list[Node] = field(default_factory=list)
    """Where it passes the layers between its boxes."""


@dataclass
class Layout:
    """Boxes and arrows with their places, and the size of it all."""

    nodes: dict[str, Node]
    edges: list[Edge] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0


def place(nodes: list[Node], edges: list[Edge], roots: list[str]) -> Layout:
    """Give boxes and arrows their places; the walk that finds circles begins at the roots."""
    layout = Layout({node.name: node for node in nodes}, edges)
    _layers(layout, roots)
    columns: dict[int, list[Node]] = {}
    for node in layout.nodes.values():
        columns.setdefault(node.layer, []).append(node)
        arriving = sum(edge.target == node.name for edge in edges)
        node.height = max(LEAST_HEIGHT, PORT * arriving + 8)
    for edge in edges:
        first, last = layout.nodes[edge.source].layer + 1, layout.nodes[edge.target].layer
        edge.via = [
            Node(edge.source, edge.weight, layer, height=_LANE) for layer in range(first, last)
        ]
        for node in edge.via:
            columns[node.layer].append(node)
    for layer in sorted(columns):
        _column(layout, columns[layer], layer)
    tallest = max((_extent(column) for column in columns.values()), default=0.0)
    for column in columns.values():
        for node in column:
            node.y += (tallest - _extent(column)) / 2 + MARGIN
    _ports(layout)
    layout.width = 2 * MARGIN + len(columns) * WIDTH + max(len(columns) - 1, 0) * GAP_X
    layout.height = tallest + 2 * MARGIN + (24 if any(edge.back for edge in edges) else 0)
    return layout


def _layers(layout: Layout, roots: list[str]) -> None:
    """Let each box stand right of all that call it, except where calls go round in a circle."""
    leaving: dict[str, list[Edge]] = {name: [] for name in layout.nodes}
    for edge in sorted(layout.edges, key=lambda edge: -edge.weight):
        leaving[edge.source].append(edge)
    order = _visited(leaving, [name for name in roots if name in layout.nodes])
    for name in order:
        for edge in leaving[name]:
            if not edge.back:
                target = layout.nodes[edge.target]
                target.layer = max(target.layer, layout.nodes[name].layer + 1)


def _visited(leaving: dict[str, list[Edge]], roots: list[str]) -> list[str]:
    """Walk depth first from the roots, then from all others; mark edges that close a circle.

    Returns the boxes so that, those edges aside, callers come before what they call.
    """
    done: list[str] = []
    state: dict[str, int] = {}  # 1: on the way, 2: done
    for start in (*roots, *leaving):
        if start in state:
            continue
        state[start] = 1
        stack = [(start, iter(leaving[start]))]
        while stack:
            name, edges = stack[-1]
            edge = next(edges, None)
            if edge is None:
                state[name] = 2
                done.append(name)
                stack.pop()
            elif edge.target not in state:
                state[edge.target] = 1
                stack.append((edge.target, iter(leaving[edge.target])))
            elif state[edge.target] == 1:
                edge.back = True
    return done[::-1]


def _column(layout: Layout, column: list[Node], layer: int) -> None:
    """Order a layer by where its callers stand, the heaviest first among equals."""

    def key(node: Node) -> tuple[float, float, str]:
        if node.height == _LANE:  # passes by: at the height of where it comes from
            return (layout.nodes[node.name].y, -node.weight, node.name)
        above = [
            layout.nodes[edge.source].y
            for edge in layout.edges
            if edge.target == node.name and layout.nodes[edge.source].layer < layer
        ]
        return (mean(above) if above else 0.0, -node.weight, node.name)

    column.sort(key=key)
    y = 0.0
    for node in column:
        node.x = MARGIN + layer * (WIDTH + GAP_X)
        node.y = y
        y += node.height + GAP_Y


def _extent(column: list[Node]) -> float:
    return sum(node.height for node in column) + GAP_Y * (len(column) - 1)


def _ports(layout: Layout) -> None:
    """Spread arriving edges over the height of their box, in the order of where they come from."""
    for node in layout.nodes.values():
        arriving = [edge for edge in layout.edges if edge.target == node.name]
        arriving.sort(key=lambda edge: (layout.nodes[edge.source].y, edge.source))
        for at, edge in enumerate(arriving):
            source = layout.nodes[edge.source]
            edge.y = node.y + node.height * (at + 1) / (len(arriving) + 1)
            edge.start_y = source.y + source.height / 2
