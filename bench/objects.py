"""Critical paths as most scripts compute them: Jaeger's JSON, trace by trace, with Python objects.

The peer of perfkit from file to critical path. The method is that of CRISP (Zhang et al., USENIX
ATC '22): from the end of a span back to the child that ended last, and so on; what every operation
spends on critical paths is added up by call path, as for CRISP's flame graphs. Nothing is slowed
down on purpose: the standard library's JSON parser, slots, no regular expressions, no recursion.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Span:
    """One span of a trace; times in µs."""

    span_id: str
    service: str
    operation: str
    start: int
    end: int
    parent_id: str | None
    parent: Span | None = None
    children: list[Span] = field(default_factory=list)

    @property
    def label(self) -> str:
        """Return how it is called in a call path."""
        return f"[{self.service}] {self.operation}"


@dataclass(slots=True)
class Trace:
    """The spans of one trace, linked."""

    spans: dict[str, Span]

    @classmethod
    def parse(cls, trace: dict[str, Any]) -> Trace:
        """Link the spans of a trace."""
        services = {key: process["serviceName"] for key, process in trace["processes"].items()}
        spans = {}
        for raw in trace["spans"]:
            parents = [r["spanID"] for r in raw["references"] if r["refType"] == "CHILD_OF"]
            spans[raw["spanID"]] = Span(
                span_id=raw["spanID"],
                service=services[raw["processID"]],
                operation=raw["operationName"],
                start=raw["startTime"],
                end=raw["startTime"] + raw["duration"],
                parent_id=parents[0] if parents else None,
            )
        for span in spans.values():
            above = spans.get(span.parent_id) if span.parent_id else None
            if above is not None:
                span.parent = above
                above.children.append(span)
        return cls(spans)

    def critical_path(self) -> dict[str, int]:
        """Return the time on critical paths of each call path."""
        found: dict[str, int] = defaultdict(int)
        for root in self.spans.values():
            if root.parent is not None:
                continue
            todo = [(root, root.start, root.end, root.label)]
            while todo:
                span, begin, until, path = todo.pop()
                for child in sorted(span.children, key=lambda one: (one.end, -one.start))[::-1]:
                    left, right = max(child.start, begin), min(child.end, until)
                    if child.end <= until and left < right:
                        found[path] += until - right
                        todo.append((child, left, right, f"{path}->{child.label}"))
                        until = left
                found[path] += until - begin
        return found


def critical_paths(files: list[str]) -> dict[str, int]:
    """Return what all files say together, in µs."""
    total: dict[str, int] = defaultdict(int)
    for file in files:
        for trace in json.loads(Path(file).read_text())["data"]:
            for path, time in Trace.parse(trace).critical_path().items():
                total[path] += time
    return dict(total)
