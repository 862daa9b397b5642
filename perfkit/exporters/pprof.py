"""pprof: gzipped protobuf, for `go tool pprof`, Grafana Pyroscope, Parca and Polar Signals.

One profile has several values a stack: of code how often it was seen, how long, and how long it
ran; of requests how many spans there were, their self time and their time on the critical path.
https://github.com/google/pprof/blob/main/proto/profile.proto
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import polars as pl

from perfkit.exporters import views
from perfkit.exporters.base import Source
from perfkit.exporters.pprof_schema import Profile

NAME = "pprof"
SUFFIX = ".pb.gz"
TITLE = "for `go tool pprof`, Pyroscope and Parca"
VIEWS = tuple(views.VIEWS)
TABLES = False

_VALUES = {
    "code_tree": (
        ("samples", "count", "self_count"),
        ("wall", "nanoseconds", "self_ns"),
        ("running", "nanoseconds", "running_ns"),
    ),
    "span_tree": (
        ("spans", "count", "count"),
        ("self", "nanoseconds", "self_ns"),
        ("critical", "nanoseconds", "critical_ns"),
    ),
}
"""Table -> (type, unit, column) of each value."""


class _Strings:
    """The table of strings, whose first is empty."""

    def __init__(self) -> None:
        self.known = {"": 0}

    def __call__(self, text: str) -> int:
        return self.known.setdefault(text, len(self.known))


def export(source: Source) -> Iterator[bytes]:
    """Yield the profile."""
    name, tree = views.chosen(source.tables, source.view, VIEWS)
    view = views.VIEWS[name]
    nodes = source.tables[view.table].collect()
    profile, strings = Profile(), _Strings()
    values = [one for one in _VALUES[view.table] if nodes[one[2]].null_count() < nodes.height]
    for kind, unit, column in values:
        profile.sample_type.add(type=strings(kind), unit=strings(unit))
        if column == view.weight:
            profile.default_sample_type = strings(kind)
    _add_places(profile, tree, strings)
    _add_samples(profile, tree, nodes.select(column for _, _, column in values))
    start_ns, end_ns = _times(source)
    if start_ns is not None and end_ns is not None:
        profile.time_nanos, profile.duration_nanos = start_ns, end_ns - start_ns
    profile.comment.append(strings(f"perfkit: {source.name}: {view.title}"))
    profile.string_table.extend(text.encode("utf-8", "replace").decode() for text in strings.known)
    # No time of now in the header: equal captures give equal files.
    yield gzip.compress(profile.SerializeToString(), mtime=0)


def _add_places(profile: Profile, tree: views.Tree, strings: _Strings) -> None:
    functions: dict[tuple[str, str], int] = {}
    locations: dict[tuple[str, str, int], int] = {}
    for place in zip(tree.names, tree.files, tree.lines, strict=True):
        if place in locations:
            continue
        name, file, line = place
        function = functions.get((name, file))
        if function is None:
            function = functions[name, file] = len(functions) + 1
            profile.function.add(
                id=function,
                name=strings(name),
                system_name=strings(name),
                filename=strings(file),
            )
        locations[place] = len(locations) + 1
        profile.location.add(id=locations[place]).line.add(function_id=function, line=line)


def _add_samples(profile: Profile, tree: views.Tree, values: pl.DataFrame) -> None:
    numbers: dict[tuple[str, str, int], int] = {}
    of_node = [
        numbers.setdefault(place, len(numbers) + 1)
        for place in zip(tree.names, tree.files, tree.lines, strict=True)
    ]
    rows = values.fill_null(0).cast(pl.Int64).rows()
    for path, row in zip(tree.paths(), rows, strict=True):
        if any(row):
            # The innermost frame comes first.
            leaf_first = [of_node[node] for node in reversed(path)]
            profile.sample.add(location_id=leaf_first, value=row)


def _times(source: Source) -> tuple[int | None, int | None]:
    facts = source.tables["facts"].select("start_ns", "end_ns").collect()
    return facts.row(0)
