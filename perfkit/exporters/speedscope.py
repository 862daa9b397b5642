"""speedscope's own file format, for https://www.speedscope.app and its editor extensions.

One file has several profiles: each view of the capture, and each sampled thread in the order of
time, so that "Time Order", "Left Heavy" and "Sandwich" all work. Schema:
https://www.speedscope.app/file-format-schema.json
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import polars as pl

from perfkit import __version__
from perfkit.exporters import views
from perfkit.exporters.base import Source
from perfkit.exporters.threads import Thread, threads

NAME = "speedscope"
SUFFIX = ".speedscope.json"
TITLE = "for speedscope.app: every view, and every sampled thread in time order"
VIEWS = tuple(views.VIEWS)
TABLES = False

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


class _Frames:
    """The shared table of frames."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self._known: dict[tuple[str, str, int], int] = {}

    def number(self, name: str, file: str, line: int) -> int:
        """Return the place of a frame in the table."""
        key = (name, file, line)
        place = self._known.get(key)
        if place is None:
            place = self._known[key] = len(self.frames)
            frame: dict[str, Any] = {"name": name}
            if file:
                frame["file"] = file
            if line > 0:
                frame["line"] = line
            self.frames.append(frame)
        return place


def export(source: Source) -> Iterator[bytes]:
    """Yield the document."""
    names = VIEWS if source.view is None else (source.view,)
    trees = {name: views.tree(source.tables, name) for name in names}
    frames = _Frames()
    profiles = [_merged(tree, frames) for tree in trees.values() if tree is not None]
    if not profiles:
        raise views.nothing(source.view)
    if trees.get("code") is not None:
        profiles += _in_time_order(source.tables["code_tree"].collect(), source, frames)
    yield msgspec.json.encode(
        {
            "$schema": _SCHEMA,
            "name": source.name,
            "exporter": f"perfkit@{__version__}",
            "activeProfileIndex": 0,
            "shared": {"frames": frames.frames},
            "profiles": profiles,
        }
    )


def _merged(tree: views.Tree, frames: _Frames) -> dict[str, Any]:
    numbers = [
        frames.number(*frame) for frame in zip(tree.names, tree.files, tree.lines, strict=True)
    ]
    own = tree.own.tolist()
    samples = [
        [numbers[node] for node in path]
        for path, weight in zip(tree.paths(), own, strict=True)
        if weight > 0
    ]
    weights = [weight for weight in own if weight > 0]
    unit = "nanoseconds" if tree.unit == views.NANOSECONDS else "none"
    return _profile(tree.title, unit, samples, weights)


def _in_time_order(code: pl.DataFrame, source: Source, frames: _Frames) -> list[dict[str, Any]]:
    known = [
        frames.number(function, file, line)
        for function, file, line in code.select(
            pl.col("function", "file").fill_null(""), pl.col("line").fill_null(0)
        ).iter_rows()
    ]
    paths: list[list[int]] = []
    for node, parent in enumerate(code["parent_id"].to_list()):
        paths.append([*(paths[parent] if parent is not None else ()), known[node]])
    by_stack = dict(zip(code["stack_id"], paths, strict=True))
    return [_thread(thread, by_stack) for thread in threads(source.tables)]


def _thread(thread: Thread, by_stack: dict[int, list[int]]) -> dict[str, Any]:
    samples: list[list[int]] = []
    weights: list[int] = []
    reached = 0
    for stack_id, start, length in zip(
        thread.stacks, thread.starts_ns, thread.lengths_ns, strict=True
    ):
        if start > reached:  # nobody looked: an empty stack keeps what follows in its place
            samples.append([])
            weights.append(start - reached)
        samples.append(by_stack.get(stack_id, []))
        weights.append(length)
        reached = max(reached, start + length)
    return _profile(_title(thread), "nanoseconds", samples, weights)


def _title(thread: Thread) -> str:
    numbers = (("pid", thread.pid), ("tid", thread.tid))
    ids = ", ".join(f"{what} {number}" for what, number in numbers if number is not None)
    return f"{thread.name} ({ids})" if ids else thread.name


def _profile(name: str, unit: str, samples: list[list[int]], weights: list[int]) -> dict[str, Any]:
    return {
        "type": "sampled",
        "name": name,
        "unit": unit,
        "startValue": 0,
        "endValue": sum(weights),
        "samples": samples,
        "weights": weights,
    }
