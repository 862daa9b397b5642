"""Critical paths as CRISP computes them: Jaeger's JSON, one graph of Python objects for each trace.

CRISP (Zhang et al., USENIX ATC '22) is the published tool for this work. This peer does what the
Python of github.com/uber-research/CRISP does between the file and the time of each operation on
critical paths, in our own words: the same three passes over the document, the same graph (objects,
children in a dictionary), the same clipping of children that leave their parent, the same recursive
walk with 1 % of overlap forgiven, the same flat and call-path sums. Left out is what CRISP does
besides: statistics of errors and of what their removal would save, heat map, flame graphs, HTML. It
takes one trace a file; of a document with several, each makes a graph here.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OVERLAP_ALLOWED = 0.01
"""How much of their parent's time two children may overlap and still come one after the other."""
LONGER_ALLOWED = 1.01
"""How much longer than the client's span the span of its server may be."""


class Node:
    """A span; times in µs."""

    def __init__(
        self, sid: str, start: int, duration: int, parent_sid: str | None, operation: str, pid: str,
        kind: str,
    ) -> None:  # fmt: skip
        self.sid = sid
        self.start = start
        self.duration = duration
        self.end = start + duration
        self.parent_sid = parent_sid
        self.parent: Node | None = None
        self.operation = operation
        self.pid = pid
        self.kind = kind
        self.children: dict[Node, bool] = {}


class Graph:
    """The spans of one trace."""

    def __init__(self, trace: dict[str, Any]) -> None:
        self.services: dict[str, str] = {}
        self.hosts: dict[str, str] = {}
        self.nodes: dict[str, Node] = {}
        self.roots: list[Node] = []
        self._read_processes(trace)
        self._read_spans(trace)
        self._link()
        for root in self.roots:
            self._clip(root)

    def _read_processes(self, trace: dict[str, Any]) -> None:
        for pid, process in trace["processes"].items():
            self.services[pid] = process["serviceName"]
            for tag in process.get("tags", ()):
                if tag["key"] == "hostname":
                    self.hosts[pid] = tag["value"]

    def _read_spans(self, trace: dict[str, Any]) -> None:
        for span in trace["spans"]:
            parent_sid = None
            for reference in span["references"]:
                if reference["refType"] == "CHILD_OF":
                    parent_sid = reference["spanID"]
            kind = ""
            for tag in span.get("tags", ()):
                if tag["key"].lower() == "span.kind":
                    kind = tag["value"].lower()
                    break
            sid = span["spanID"]
            self.nodes[sid] = Node(
                sid, span["startTime"], span["duration"], parent_sid, span["operationName"],
                span["processID"], kind,
            )  # fmt: skip

    def _link(self) -> None:
        for node in self.nodes.values():
            parent = self.nodes.get(node.parent_sid) if node.parent_sid else None
            if parent is None:
                self.roots.append(node)
            else:
                node.parent = parent
                parent.children[node] = True

    def _clip(self, parent: Node) -> None:
        outside = []
        for child in parent.children:
            if self._is_call(parent, child):
                child.duration = min(child.duration, parent.duration)
            elif child.start >= parent.start and child.end <= parent.end:
                pass
            elif child.start < parent.start < child.end <= parent.end:
                child.duration -= parent.start - child.start
                child.start = parent.start
            elif parent.start <= child.start < parent.end < child.end:
                child.duration -= child.end - parent.end
                child.end = parent.end
            else:
                outside.append(child)
                continue
            self._clip(child)
        for child in outside:
            child.parent = None
            del parent.children[child]

    def _is_call(self, parent: Node, child: Node) -> bool:
        """Whether a client waits for a server, whose clock may differ."""
        if len(parent.children) != 1 or child.duration > LONGER_ALLOWED * parent.duration:
            return False
        hosts = self.hosts.get(parent.pid), self.hosts.get(child.pid)
        if all(hosts) and hosts[0] != hosts[1]:
            return True
        if child.kind != "server":
            return False
        above = parent.parent
        between = parent.kind != "server" and above is not None and above.kind == "server"
        return parent.kind == "client" or between

    def critical_path(self, node: Node) -> list[Node]:
        """Return the spans on the critical path of one."""
        path = [node]
        if not node.children:
            return path
        latest_first = sorted(node.children, key=lambda child: child.end)[::-1]
        later = latest_first[0]
        path.extend(self.critical_path(later))
        for child in latest_first[1:]:
            if _before(node, latest_first, child, later):
                path.extend(self.critical_path(child))
                later = child
        return path

    def name(self, node: Node) -> str:
        """Return how its operation is called."""
        return f"[{self.services[node.pid]}] {node.operation}"

    def call_path(self, node: Node) -> str:
        """Return how it is reached from the root."""
        text = self.name(node)
        while node.parent is not None:
            node = node.parent
            text = f"{self.name(node)}->{text}"
        return text


def _before(parent: Node, children: list[Node], first: Node, later: Node) -> bool:
    if first.end < later.start:
        return True
    if (
        first.end < later.end
        and first.start < later.start
        and (first.end - later.start) / parent.duration < OVERLAP_ALLOWED
    ):
        # Only when no other child begins or ends in the time in which they overlap.
        marks = 0
        for child in children:
            marks += (later.start <= child.start <= first.end) + (
                later.start <= child.end <= first.end
            )
        return marks == 2
    return False


class Sums:
    """What operations and call paths spend on critical paths, with and without what they call."""

    def __init__(self) -> None:
        self.exclusive: dict[str, int] = defaultdict(int)
        self.inclusive: dict[str, int] = defaultdict(int)
        self.path_exclusive: dict[str, int] = defaultdict(int)
        self.path_inclusive: dict[str, int] = defaultdict(int)
        self.longest: dict[str, tuple[str, int]] = {}
        self.chains: dict[str, set[str]] = defaultdict(set)

    def add(self, graph: Graph, root: Node) -> None:
        """Add the critical path of one root."""
        for node in reversed(graph.critical_path(root)):
            name, path, time = graph.name(node), graph.call_path(node), node.duration
            self.chains[name].add(path)
            self.exclusive[name] += time
            self.inclusive[name] += time
            self.path_exclusive[path] += time
            self.path_inclusive[path] += time
            if path not in self.longest or time > self.longest[path][1]:
                self.longest[path] = (node.sid, time)
            if node.parent is not None:
                self.exclusive[graph.name(node.parent)] -= time
                self.path_exclusive[graph.call_path(node.parent)] -= time


def traces(folder: Path) -> Iterator[dict[str, Any]]:
    """Read the traces of all files of a folder."""
    for file in sorted(folder.iterdir()):
        with file.open() as opened:
            yield from json.load(opened)["data"]


def time_on_critical_paths(folder: Path) -> dict[str, int]:
    """Return the time of each operation on critical paths, without what it calls, in µs."""
    sums = Sums()
    for trace in traces(folder):
        graph = Graph(trace)
        for root in graph.roots:
            sums.add(graph, root)
    return {name: time for name, time in sums.exclusive.items() if time}
