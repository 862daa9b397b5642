"""A static flame graph: one SVG file without script, for a ticket, a wiki or a printer.

The root is at the bottom, the widest child left. The full name of every frame is in the drawing,
clipped to the frame, so the browser's own search finds it; hovering gives name and figures.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from xml.sax.saxutils import escape

import numpy as np

from perfkit import units
from perfkit.exporters import views
from perfkit.exporters.base import Source

NAME = "svg"
SUFFIX = ".svg"
TITLE = "a static flame graph, for a ticket or a wiki"
VIEWS = tuple(views.VIEWS)
TABLES = False

_WIDTH, _ROW, _MARGIN, _HEAD, _FOOT = 1200, 17, 10, 46, 24
_NARROWEST = 0.25
"""Frames that would be narrower than so many pixels are left out; it is said how many."""
_READABLE = 24
"""Names of narrower frames are not drawn, only there to be found."""
_COLOURS = {
    "app": "#f4a261",
    "library": "#f6d186",
    "stdlib": "#cfe3a5",
    "native": "#a9c9e8",
    "thread": "#d9d9d9",
    "server": "#f4a261",
    "internal": "#f6d186",
    "client": "#a9c9e8",
    "database": "#b7b1e0",
    "messaging": "#cfe3a5",
    "tool": "#f2a7b5",
}
_OTHER = "#d9d9d9"
_STYLE = (
    "text{font:12px ui-monospace,Menlo,Consolas,monospace;fill:#222}"
    "rect{stroke:#fff;stroke-width:.5}g:hover>rect{stroke:#222;stroke-width:1}"
    ".h{font:bold 15px sans-serif}.n{font:12px sans-serif;fill:#555}.f{fill-opacity:0}"
)


def export(source: Source) -> Iterator[bytes]:
    """Yield the drawing."""
    _, tree = views.chosen(source.tables, source.view, VIEWS)
    totals = tree.totals()
    whole = int(totals[tree.parents < 0].sum())
    left, depth = _layout(tree.parents, totals)
    width = totals * ((_WIDTH - 2 * _MARGIN) / whole)
    shown = np.flatnonzero(width >= _NARROWEST).tolist()
    rows = max((int(depth[node]) for node in shown), default=0) + 1
    height = _HEAD + rows * _ROW + _FOOT
    yield (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" role="img">\n'
        f"<title>{_text(source.name)}: {_text(tree.title)}</title>\n<style>{_STYLE}</style>\n"
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>\n'
        f'<text class="h" x="{_MARGIN}" y="22">{_text(source.name)}</text>\n'
        f'<text class="n" x="{_MARGIN}" y="39">{_text(tree.title)}: {_amount(whole, tree)}</text>\n'
    ).encode()
    scale = (_WIDTH - 2 * _MARGIN) / whole
    pieces = []
    for node in shown:
        x = _MARGIN + left[node] * scale
        y = _HEAD + (rows - 1 - int(depth[node])) * _ROW
        pieces.append(_frame(tree, node, int(totals[node]), whole, x, y, float(width[node])))
    yield "".join(pieces).encode("utf-8", "replace")
    hidden = len(totals) - len(shown)
    note = (
        f"{units.number(hidden)} frames narrower than {_NARROWEST} px are not drawn"
        if hidden
        else ""
    )
    yield (f'<text class="n" x="{_MARGIN}" y="{height - 8}">{note}</text>\n</svg>\n').encode()


def _layout(parents: views.Ints, totals: views.Ints) -> tuple[views.Ints, views.Ints]:
    """Return the left edge of each node, in units of weight, and its depth."""
    left = np.zeros(len(parents), dtype=np.int64)
    depth = np.zeros(len(parents), dtype=np.int64)
    used: dict[int, int] = {}
    # By level, so that a parent has its place before its children; the widest first.
    for node, parent in enumerate(parents.tolist()):
        depth[node] = depth[parent] + 1 if parent >= 0 else 0
    for node in np.lexsort((np.arange(len(parents)), -totals, depth)).tolist():
        parent = int(parents[node])
        offset = used.get(parent, 0)
        left[node] = (left[parent] if parent >= 0 else 0) + offset
        used[parent] = offset + int(totals[node])
    return left, depth


def _frame(
    tree: views.Tree, node: int, total: int, whole: int, x: float, y: int, width: float
) -> str:
    name, file, line = tree.names[node], tree.files[node], tree.lines[node]
    place = f" ({file}:{line})" if line else f" ({file})" if file else ""
    own = int(tree.own[node])
    title = (
        f"{name}{place}\n{_amount(total, tree)}, {units.percent(total / whole)}"
        f"; itself {_amount(own, tree)}"
    )
    colour = _COLOURS.get(tree.categories[node], _OTHER)
    found = ' class="f"' if width < _READABLE else ""
    return (
        f'<g><title>{_text(title)}</title><rect x="{x:.2f}" y="{y}" width="{width:.2f}" '
        f'height="{_ROW - 1}" rx="1" fill="{colour}"/>'
        f'<svg x="{x:.2f}" y="{y}" width="{width:.2f}" height="{_ROW - 1}">'
        f'<text x="3" y="12"{found}>{_text(name)}</text></svg></g>\n'
    )


def _amount(weight: int, tree: views.Tree) -> str:
    if tree.unit == views.NANOSECONDS:
        return units.duration(weight)
    return f"{units.number(weight)} samples"


def _text(text: str) -> str:
    """Escape a text; what XML cannot hold, or what turns the reading direction, is replaced."""
    return escape(
        "".join(
            char
            if char == "\n" or (char.isprintable() and unicodedata.category(char) != "Cf")
            else "\N{REPLACEMENT CHARACTER}"
            for char in text
        )
    )
