"""Typed reading of a rule's fields: what is missing, unknown or of the wrong type says where."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

from perfkit import units
from perfkit.rules import known, messages
from perfkit.rules.document import Node
from perfkit.rules.messages import Message
from perfkit.rules.model import Param
from perfkit.sql import guard
from perfkit.sql.checked import Expression, Part, Query
from perfkit.sql.scopes import GuardError, unknown
from perfkit.sql.write import literal

_Choice = TypeVar("_Choice", bound=str)
_Checked = TypeVar("_Checked")

_Family = dict[str, float]
_TIME: _Family = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
}
_SIZE: _Family = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_RATE: _Family = {"1/s": 1.0, "1/min": 1 / 60, "1/h": 1 / 3600}
_SHARE: _Family = {"%": 0.01, "ratio": 1.0}
_FAMILIES: tuple[_Family, ...] = (_TIME, _SIZE, _RATE, _SHARE, {"count": 1})
UNITS = (*_TIME, *_SIZE, *_RATE, *_SHARE, "count", "text")
"""Units of parameters. SQL sees ns, bytes, events per second, and ratios."""


class Map:
    """A map of a rule file whose keys are all known. Every reader names the place of a fault."""

    def __init__(
        self, node: Node, what: str, required: Collection[str], optional: Collection[str] = ()
    ) -> None:
        if not isinstance(node.value, dict):
            raise node.place.error(f"{what} must be a map with the keys {', '.join(required)}")
        self.node, self.what, self._values = node, what, node.value
        keys = node.keys or {}
        for key in node.value:
            if key not in required and key not in optional:
                raise keys[key].error(*unknown(f"key of {what}", key, [*required, *optional]))
        for key in required:
            if key not in node.value:
                raise node.place.error(f"{what} lacks the key {key!r}")

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __getitem__(self, key: str) -> Node:
        return self._values[key]

    def text(self, key: str) -> str:
        """Return a text that is not empty."""
        return text(self._values[key], f"{key} of {self.what}")

    def choice(self, key: str, among: tuple[_Choice, ...]) -> _Choice:
        """Return one of a few words."""
        node = self._values[key]
        for word in among:
            if node.value == word:
                return word
        raise node.place.error(*unknown(key, str(node.value), among))

    def flag(self, key: str) -> bool:
        """Return true or false; false when absent."""
        if key not in self._values:
            return False
        node = self._values[key]
        if not isinstance(node.value, bool):
            raise node.place.error(f"{key} of {self.what} must be true or false")
        return node.value

    def items(self, key: str) -> list[Node]:
        """Return the items of a list; none when absent."""
        return items(self._values[key], f"{key} of {self.what}") if key in self._values else []

    def pairs(self, key: str) -> Iterator[tuple[str, Node]]:
        """Yield the pairs of a map; none when absent."""
        if key in self._values:
            yield from pairs(self._values[key], f"{key} of {self.what}")

    def message(self, key: str, columns: Collection[str]) -> Message:
        """Return a text with checked slots."""
        self.text(key)
        return message(self._values[key], columns)


def text(node: Node, what: str) -> str:
    """Return a text that is not empty."""
    if not isinstance(node.value, str) or not node.value.strip():
        raise node.place.error(f"{what} must be a text")
    return node.value.strip()


def items(node: Node, what: str) -> list[Node]:
    """Return the items of a list."""
    if not isinstance(node.value, list):
        raise node.place.error(f"{what} must be a list")
    return node.value


def pairs(node: Node, what: str) -> Iterator[tuple[str, Node]]:
    """Yield the pairs of a map."""
    if not isinstance(node.value, dict):
        raise node.place.error(f"{what} must be a map")
    yield from node.value.items()


def message(node: Node, columns: Collection[str]) -> Message:
    """Return a text whose slots name known columns."""
    return placed(node, lambda source: messages.parse(source, columns))


def expression(node: Node, columns: Collection[str], params: Collection[str]) -> Expression:
    """Return a checked expression; a bare number, true or false is one too."""
    if isinstance(node.value, bool | int | float):
        return Expression(Part(literal(node.value)))
    return placed(
        node,
        lambda source: (
            known.expression(source, columns, params)
            or guard.check_expression(source, columns, params)
        ),
    )


def query(node: Node, tables: dict[str, tuple[str, ...]], params: Collection[str]) -> Query:
    """Return a checked query."""
    return placed(
        node,
        lambda source: (
            known.query(source, tables, params) or guard.check_query(source, tables, params)
        ),
    )


def placed(node: Node, check: Callable[[str], _Checked]) -> _Checked:
    """Return what `check` makes of the text, with its faults placed in the file."""
    if not isinstance(node.value, str):
        raise node.place.error("must be a text")
    try:
        return check(node.value.rstrip("\n"))
    except GuardError as error:
        raise node.text_place(error.line, error.column).error(str(error), error.hint) from error


def param(node: Node, name: str) -> Param:
    """Return a parameter, its value in the base unit."""
    top = Map(node, f"parameter {name}", ("default", "unit", "source"))
    unit, source = top.choice("unit", UNITS), top.text("source")
    value = top["default"].value
    if unit == "text":
        return Param(top.text("default"), top.text("default"), unit, source)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise top["default"].place.error(f"the default of {name} must be a number")
    try:
        return Param(_in_base_unit(value, unit), _shown(value, unit), unit, source)
    except ValueError as error:
        raise top["default"].place.error(str(error)) from error


_AMOUNT = re.compile(r"([-+]?[0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)\s*(\S*)\Z")


def retuned(param: Param, text: str) -> Param:
    """Return the parameter with the value of a text: `200ms`, or a number in its own unit.

    Raises ValueError when the text is no such value.
    """
    source = f"tuned; else {param.shown} ({param.source})"
    if param.unit == "text":
        return Param(text, text, param.unit, source)
    family = next(one for one in _FAMILIES if param.unit in one)
    match = _AMOUNT.match(text)
    given = match[2] or param.unit if match else ""
    unit = next((one for one in family if given in (one, one.removeprefix("1"))), None)
    if match is None or unit is None:
        raise ValueError(f"{text!r} is no value in {' or '.join(family)}")
    value = float(match[1]) if set(match[1]) & set(".eE") else int(match[1])
    return Param(_in_base_unit(value, unit), _shown(value, unit), param.unit, source)


def _shown(value: float, unit: str) -> str:
    return f"{value}" if unit in ("count", "ratio") else f"{units.number(value)} {unit}"


def _in_base_unit(value: float, unit: str) -> int | float:
    family = next(one for one in _FAMILIES if unit in one)
    base = value / 100 if unit == "%" else value * family[unit]
    if not abs(base) < 2**63:
        raise ValueError(f"{value} {unit} is too large")
    return round(base) if family in (_TIME, _SIZE) else base
