"""Texts of rules: plain text with `{column:spec}`, where a spec says how the value is written."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from perfkit import units
from perfkit.rules.scopes import GuardError, unknown

MAX_VALUE = 160
"""Longest text of one value; statements and paths beyond it are cut in the middle."""

_LIST_SHOWN = 4
_SLOT = re.compile(r"\{([^{}]*)\}")
_INSIDE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*):([a-z]+)\Z")


def text(value: Any) -> str:
    """Write text on one line, without control characters, cut when it is long."""
    if value is None:
        return units.MISSING
    if isinstance(value, list | tuple):
        return _listed(value)
    return shorten(plain(str(value)), MAX_VALUE)


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
    "number": units.number,
    "integer": _integer,
    "duration": units.duration,
    "percent": units.percent,
    "size": units.size,
    "rate": units.rate,
    "time": units.timestamp,
}
"""How a value may be written. Durations are ns, percentages ratios, rates events per second."""


@dataclass(frozen=True)
class Message:
    """A text whose slots are filled from the columns of a finding."""

    parts: tuple[str | tuple[str, str], ...]

    def render(self, values: Mapping[str, Any]) -> str:
        """Return the text. A value that its spec cannot write is shown as missing."""
        return "".join(
            part if isinstance(part, str) else _write(values.get(part[0]), part[1])
            for part in self.parts
        )


def _write(value: Any, spec: str) -> str:
    if spec != "text" and (isinstance(value, bool) or not isinstance(value, int | float)):
        return units.MISSING
    if spec == "time" and isinstance(value, float):
        return units.MISSING
    return SPECS[spec](value)


def parse(source: str, columns: Collection[str]) -> Message:
    """Check a text over `columns`. Raises GuardError with the place inside the text."""
    parts: list[str | tuple[str, str]] = []
    end = 0
    for match in _SLOT.finditer(source):
        _no_brace(source, end, match.start())
        parts.append(source[end : match.start()])
        parts.append(_slot(source, match, columns))
        end = match.end()
    _no_brace(source, end, len(source))
    parts.append(source[end:])
    folded = tuple(" ".join(part.split("\n")) if isinstance(part, str) else part for part in parts)
    return Message(tuple(part for part in folded if part))


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


def _no_brace(source: str, start: int, end: int) -> None:
    for offset in range(start, end):
        if source[offset] in "{}":
            raise _error(source, offset, f"a lone {source[offset]!r}: write {{column:spec}}")


def _error(source: str, offset: int, message: str, hint: str | None = None) -> GuardError:
    line = source.count("\n", 0, offset) + 1
    return GuardError(message, line, offset - source.rfind("\n", 0, offset), hint=hint)
