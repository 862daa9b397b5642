"""Texts of rules: plain text with `{column:spec}`, where a spec says how the value is written.

A part in double brackets, `[[ from {old:size}]]`, is left out when one of its values is missing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from perfkit import units
from perfkit.sql.scopes import GuardError, unknown

MAX_VALUE = 160
"""Longest text of one value; statements and paths beyond it are cut in the middle."""

_LIST_SHOWN = 4
_SLOT = re.compile(r"\{([^{}]*)\}")
_OPTIONAL = re.compile(r"\[\[(.*?)\]\]", re.DOTALL)
_COMPREHENSION = re.compile(r"(\.<locals>\.<(?:(?:list|dict|set)comp|genexpr)>)+\Z")
_NAME = re.compile(r"\w[\w.$:]*")
_INSIDE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*):([a-z]+)\Z")


def text(value: Any) -> str:
    """Write text on one line, without control characters, cut when it is long."""
    if value is None:
        return units.MISSING
    if isinstance(value, list | tuple):
        return _listed(value)
    return shorten(plain(str(value)), MAX_VALUE)


def function(value: Any) -> str:
    """Write the name of a function so that it is read as one: `parse()`; `<module>` stays.

    A comprehension is called by the function that it is written in.
    """
    written = _COMPREHENSION.sub("", text(value))
    return f"{written}()" if _NAME.fullmatch(written) else written


def plain(value: str) -> str:
    """Return text without control characters, direction overrides and line breaks."""
    kept = (
        char
        if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
        else " "
        for char in value
    )
    return " ".join("".join(kept).split())


def shorten(value: str, longest: int) -> str:
    """Cut the middle out of a long text."""
    if len(value) <= longest:
        return value
    tail = longest // 4
    return f"{value[: longest - tail - 3]} … {value[-tail:]}"


def _listed(values: Iterable[Any]) -> str:
    items = [shorten(plain(str(value)), 60) for value in values if value is not None]
    shown = items[:_LIST_SHOWN]
    if len(items) > len(shown):
        return f"{', '.join(shown)} and {len(items) - len(shown)} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def _integer(value: float | None) -> str:
    rounded = None if value is None or not abs(value) < 1e15 else round(value)
    return units.number(rounded)


SPECS: dict[str, Callable[[Any], str]] = {
    "text": text,
    "function": function,
    "number": units.number,
    "integer": _integer,
    "duration": units.duration,
    "percent": units.percent,
    "size": units.size,
    "rate": units.rate,
    "time": units.timestamp,
}
"""How a value may be written. Durations are ns, percentages ratios, rates events per second."""


Part = str | tuple[str, str]
"""Text, or the column and spec of a slot."""


@dataclass(frozen=True)
class Message:
    """A text whose slots are filled from the columns of a finding."""

    parts: tuple[tuple[bool, tuple[Part, ...]], ...]
    """Runs of parts, and whether each run is left out when a value in it is missing."""

    def render(self, values: Mapping[str, Any]) -> str:
        """Return the text. A value that its spec cannot write is shown as missing."""
        runs = []
        for optional, parts in self.parts:
            texts = [_write(part, values) for part in parts]
            if not (optional and None in texts):
                runs.append("".join(units.MISSING if one is None else one for one in texts))
        return "".join(runs)

    def plain(self) -> str:
        """Return the text with the names of its slots, for readers of the rule."""
        parts = [part for _, run in self.parts for part in run]
        return "".join(part if isinstance(part, str) else f"‹{part[0]}›" for part in parts)


def _write(part: Part, values: Mapping[str, Any]) -> str | None:
    """Return the text of a part; None when its value is missing."""
    if isinstance(part, str):
        return part
    name, spec = part
    value = values.get(name)
    if value is None:
        return None
    of_numbers = spec not in ("text", "function")
    if of_numbers and (isinstance(value, bool) or not isinstance(value, int | float)):
        return None
    if spec == "time" and isinstance(value, float):
        return None
    written = SPECS[spec](value)
    return written if written not in ("", units.MISSING) else None


def parse(source: str, columns: Collection[str]) -> Message:
    """Check a text over `columns`. Raises GuardError with the place inside the text."""
    runs: list[tuple[bool, tuple[Part, ...]]] = []
    end = 0
    for match in _OPTIONAL.finditer(source):
        runs.append((False, tuple(_parts(source, end, match.start(), columns))))
        runs.append((True, tuple(_parts(source, match.start(1), match.end(1), columns))))
        end = match.end()
    runs.append((False, tuple(_parts(source, end, len(source), columns))))
    return Message(tuple(run for run in runs if run[1]))


def _parts(source: str, start: int, stop: int, columns: Collection[str]) -> Iterator[Part]:
    end = start
    for match in _SLOT.finditer(source, start, stop):
        yield from _text_between(source, end, match.start())
        yield _slot(source, match, columns)
        end = match.end()
    yield from _text_between(source, end, stop)


def _text_between(source: str, start: int, stop: int) -> Iterator[str]:
    between = source[start:stop]
    for sign in ("{", "}", "[[", "]]"):
        if sign in between:
            offset = start + between.index(sign)
            raise _error(source, offset, f"a lone {sign!r}: write {{column:spec}} or [[ … ]]")
    if between:
        yield " ".join(between.split("\n"))


def _slot(source: str, match: re.Match[str], columns: Collection[str]) -> tuple[str, str]:
    inside = _INSIDE.match(match[1])
    if inside is None:
        raise _error(source, match.start(), f"{match[0]} is not {{column:spec}}")
    name, spec = inside.groups()
    if spec not in SPECS:
        raise _error(source, match.start(), *unknown("spec", spec, SPECS))
    if name not in columns:
        raise _error(source, match.start(), *unknown("column", name, columns))
    return name, spec


def _error(source: str, offset: int, message: str, hint: str | None = None) -> GuardError:
    line = source.count("\n", 0, offset) + 1
    return GuardError(message, line, offset - source.rfind("\n", 0, offset), hint=hint)
