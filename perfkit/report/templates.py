"""The Jinja environment of the report: what every template may rely on.

Everything printed goes through `text.clean` and is then escaped; undefined names are errors.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup, escape

from perfkit import units
from perfkit.report.text import clean, clean_all
from perfkit.resources import data_dir


def _signed(ratio: float) -> str:
    """Write a change with its sign."""
    return f"{'+' if ratio > 0 else '−' if ratio < 0 else ''}{units.percent(abs(ratio))}"


_SUFFIXES = (
    ("_ns", units.duration),
    ("_bytes", units.size),
    ("_ratio", units.percent),
    ("_per_s", units.rate),
    ("_s", lambda seconds: units.duration(seconds * 1e9)),
)
_MAX_LIST = 5
_LONG_AGO_NS = 10**17
"""Nanoseconds beyond which a time is a moment since 1970 and not a length: three years."""

_UNIT = re.compile(r"(?<=\d) (?=(?:%|ns|µs|ms|s|min|h|B|KiB|MiB|GiB|TiB)(?!\w))")
"""The space between a number and its unit."""

_NAMES = ("pid", "tid", "port", "id", "most_held_by_thread")
"""What is a number and yet a name: no thousands are separated."""


@cache
def environment() -> jinja2.Environment:
    """Return the environment with perfkit's filters; templates are those shipped."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(data_dir("report_templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "duration": units.duration,
        "number": units.number,
        "percent": units.percent,
        "size": units.size,
        "rate": units.rate,
        "timestamp": units.timestamp,
        "value": value,
        "link": link,
        "clean": clean,
        "attribute": attribute,
        "prose": prose,
        "unbroken": unbroken,
        "heading": heading,
    }
    made.globals["percent_range"] = units.percent_range
    return made


def _finalize(printed: Any) -> Any:
    if isinstance(printed, Markup):
        return printed
    if isinstance(printed, str):
        return clean(printed)
    return units.MISSING if printed is None else printed


def value(content: Any, name: str) -> str:
    """Write a value of a table by the unit in its column's name: `p95_ns`, `rss_bytes` ..."""
    if content is None:
        return units.MISSING
    if isinstance(content, bool):
        return "yes" if content else "no"
    if isinstance(content, int | float):
        if name in _NAMES:
            return str(content)
        if name == "change_ratio":
            return _signed(content)
        if name.endswith("_ns") and content > _LONG_AGO_NS:
            return units.timestamp(int(content))
        for suffix, write in _SUFFIXES:
            if name.endswith(suffix) or name == suffix[1:]:
                return write(content)
        return units.number(content)
    if isinstance(content, list | tuple):
        shown = ", ".join(value(item, name) for item in content[:_MAX_LIST])
        return (
            shown if len(content) <= _MAX_LIST else f"{shown} and {len(content) - _MAX_LIST} more"
        )
    if isinstance(content, dict):
        return ", ".join(
            f"{heading(str(key))} {value(item, str(key))}" for key, item in content.items()
        )
    return str(content)


def heading(name: str) -> str:
    """Write a column's name as a heading: `p95_ns` -> `p95`, `requests_per_s` -> `requests`."""
    for suffix, _ in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name.replace("_", " ")


def link(url: str) -> str | None:
    """Return an address that a page may link to; null for `javascript:` and its like."""
    return url if url.lower().startswith(("https://", "http://")) else None


def attribute(content: Any) -> Markup:
    """Write a value as JSON for a `data-` attribute, cleaned like the page's data."""
    return escape(json.dumps(clean_all(content), ensure_ascii=False))


def unbroken(content: str) -> str:
    """Keep numbers and their units on one line."""
    return _UNIT.sub("\N{NO-BREAK SPACE}", content)


def prose(content: str) -> Markup:
    """Write a sentence of a rule: what stands between backticks is code."""
    parts = unbroken(clean(content)).split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner is only a character
        parts[-2:] = ["`".join(parts[-2:])]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )
