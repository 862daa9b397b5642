"""A YAML file read as a tree in which every value knows its line and column.

Only what a rule needs is YAML here: maps, lists, text, numbers, true, false and null (the core
schema of YAML 1.2, in which `no` and `on` are text). Anchors, aliases, tags, merges, a second
document and duplicate keys are refused, so a file means what it looks like and cannot grow.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from perfkit.errors import RuleError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16

Scalar = str | int | float | bool | None
_NextEvent = Callable[[], Any]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"[-+]?[0-9][0-9_]*\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_WORDS: dict[str, Scalar] = {"": None, "~": None, "null": None, "true": True, "false": False}


class Place(NamedTuple):
    """A position in a file, counted from 1."""

    path: Path
    line: int
    column: int

    def error(self, message: str, hint: str | None = None) -> RuleError:
        """Return the error that something is wrong here."""
        return RuleError(f"{self.path}:{self.line}:{self.column}: {message}", hint=hint)


@dataclass(slots=True)
class Node:
    """A value and where it begins. `value` is a scalar, a list of nodes, or a map to nodes."""

    place: Place
    value: Scalar | list[Node] | dict[str, Node]
    block: bool = False
    """Whether the text is written below its key (`|`), so that its first line is the next one."""
    keys: dict[str, Place] | None = None
    """For a map: where each key stands."""

    def text_place(self, line: int, column: int) -> Place:
        """Return the place in the file of a line and column (from 1) inside this text."""
        place = self.place
        if not self.block:
            # A plain or quoted text may be folded over lines; its start is as near as can be said.
            same_line = line == 1
            return Place(place.path, place.line, place.column + (column - 1 if same_line else 0))
        lines = place.path.read_text(encoding="utf-8").splitlines()
        indent = next(
            (len(one) - len(one.lstrip()) for one in lines[place.line :] if one.strip()), 0
        )
        return Place(place.path, place.line + line, indent + column)


def read(path: Path, most_bytes: int = MAX_BYTES, *, without: str | None = None) -> Node:
    """Return the file as a tree. Raises RuleError with file, line and column.

    What belongs to the top-level key `without` is not read: an empty list stands for it.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RuleError(f"{path}: {error.strerror or error}") from error
    return parse(path, raw, most_bytes, without=without)


def parse(
    path: Path, raw: bytes, most_bytes: int = MAX_BYTES, *, without: str | None = None
) -> Node:
    """Return what a file holds as a tree, as `read` does."""
    start = Place(path, 1, 1)
    if len(raw) > most_bytes:
        raise start.error(f"larger than {most_bytes // 1024} KiB")
    try:
        text = raw.decode("utf-8")
        if without:
            text = _cut(text, without)
        # Event by event: what `yaml.parse` asks beside takes as long as the parser itself.
        following: _NextEvent = _LOADER(text).get_event
        _expect(following(), yaml.StreamStartEvent)
        first = following()
        if isinstance(first, yaml.StreamEndEvent):
            raise start.error("the file is empty")
        tree = _node(following(), following, path, 0)
        _expect(following(), yaml.DocumentEndEvent)
        after = following()
        if not isinstance(after, yaml.StreamEndEvent):
            raise _place(path, after).error("a second document; one file holds one")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise Place(path, line, 1).error("not UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Place(path, mark.line + 1, mark.column + 1) if mark is not None else start
        raise where.error(f"not valid YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise start.error(f"not valid YAML: {' '.join(str(error).split())}") from error
    return tree


def _cut(text: str, key: str) -> str:
    """Empty the list of a top-level key; what follows stays on its lines."""
    found = re.search(rf"^{key}:\s*\n(?:[ \-#].*\n|\n)*", text, re.MULTILINE)
    if found is None:
        return text
    lines = "\n" * found[0].count("\n")
    return f"{text[: found.start()]}{key}: []{lines}{text[found.end() :]}"


def _expect(event: yaml.Event, kind: type[yaml.Event]) -> None:
    assert isinstance(event, kind), f"{event} instead of {kind.__name__}"


def _place(path: Path, event: yaml.Event) -> Place:
    mark = event.start_mark
    assert mark is not None  # only events of a program's own have none
    return Place(path, mark.line + 1, mark.column + 1)


def _node(event: Any, following: _NextEvent, path: Path, depth: int) -> Node:
    place = _place(path, event)
    kind = type(event)
    if kind is yaml.AliasEvent:
        raise place.error("aliases are not allowed here; write the value again")
    if event.anchor is not None:
        raise place.error("anchors are not allowed here")
    if event.tag is not None:
        raise place.error(f"the tag {event.tag} is not allowed here")
    if depth > MAX_DEPTH:
        raise place.error(f"nested deeper than {MAX_DEPTH} levels")
    if kind is yaml.ScalarEvent:
        style = event.style
        return Node(place, event.value if style else _scalar(event.value, place), style == "|")
    if kind is yaml.SequenceStartEvent:
        items = []
        while type(event := following()) is not yaml.SequenceEndEvent:
            items.append(_node(event, following, path, depth + 1))
        return Node(place, items)
    _expect(event, yaml.MappingStartEvent)
    values: dict[str, Node] = {}
    keys: dict[str, Place] = {}
    while type(event := following()) is not yaml.MappingEndEvent:
        found = _node(event, following, path, depth + 1)
        at, key = found.place, found.value
        if not isinstance(key, str):
            raise at.error(f"the key {_shown(key)} is not text")
        if key in keys:
            raise at.error(f"the key {key!r} was given before, on line {keys[key].line}")
        keys[key] = at
        values[key] = _node(following(), following, path, depth + 1)
    return Node(place, values, keys=keys)


def _shown(key: object) -> str:
    return "that is a list or map" if isinstance(key, list | dict) else repr(key)


def _scalar(text: str, place: Place) -> Scalar:
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789" or len(text) > 40:
        return text
    if _INTEGER.match(text):
        number = int(text.replace("_", ""))
        if not -(2**63) <= number < 2**63:
            raise place.error(f"the number {text} does not fit into 64 bits")
        return number
    if _FLOAT.match(text):
        return float(text)
    return text
