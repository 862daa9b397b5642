"""Collapsed stacks, one a line: `frame;frame;frame weight`, as flamegraph.pl and inferno read them.

The weight is in microseconds, or a count of samples where the capture has no times. Frames are
written as py-spy writes them, `function (file:line)`; spans as `name [service]`.
"""

from __future__ import annotations

from collections.abc import Iterator

from perfkit.exporters import views
from perfkit.exporters.base import Source

NAME = "collapsed"
SUFFIX = ".txt"
TITLE = "collapsed stacks, for flamegraph.pl and inferno"

VIEWS = tuple(views.VIEWS)
TABLES = False


def export(source: Source) -> Iterator[bytes]:
    """Yield one line a path, in the order of the tree."""
    name, tree = views.chosen(source.tables, source.view, VIEWS)
    spans = views.VIEWS[name].table == "span_tree"
    frames = _frames(tree, spans)
    scale = 1000 if tree.unit == views.NANOSECONDS else 1
    lines: list[str] = []
    for path, own in zip(tree.paths(), tree.own.tolist(), strict=True):
        # Less than half a microsecond is not shown: a line of weight 0 says nothing.
        if weight := round(own / scale):
            lines.append(f"{';'.join(frames[node] for node in path)} {weight}\n")
    yield "".join(lines).encode("utf-8", "replace")


def _frames(tree: views.Tree, spans: bool) -> list[str]:
    places = [
        f"{file}:{line}" if line else file
        for file, line in zip(tree.files, tree.lines, strict=True)
    ]
    form = "{} [{}]" if spans else "{} ({})"
    return [
        _one_frame(form.format(name, place) if place else name)
        for name, place in zip(tree.names, places, strict=True)
    ]


def _one_frame(text: str) -> str:
    """Keep a name from ending its frame or its line."""
    return (
        "".join(char if char.isprintable() else " " for char in text.replace(";", ":")).strip()
        or "(no name)"
    )
