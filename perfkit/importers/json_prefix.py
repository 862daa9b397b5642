"""What is whole of a damaged JSON document: for `--keep-going`, where a format is one document.

A document is read up to its damage, what is incomplete there is dropped, and what is open is
closed. A list that is cut within an element that must be whole ends before that element.
"""

from __future__ import annotations

import functools
import mmap
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import msgspec

from perfkit.errors import InputError
from perfkit.importers.base import Source

CUT = "perfkit:cut"
"""A member that each object gets that was not whole."""

_NUMBER = rb"-?(?:0|[1-9]\d*+)(?:\.\d++)?+(?:[eE][+-]?\d++)?+"
_STRING = rb'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"'
_TOKEN = re.compile(
    rb"\s*+(?:(?P<value>" + _STRING + rb"|true|false|null|" + _NUMBER + rb"(?=[\s,\]}]))"
    rb"|(?P<mark>[][{},:]))"
)
# Many numbers in a list are found in one go.
_NUMBERS = re.compile(rb"(?:\s*+" + _NUMBER + rb"\s*+,)++")
_MAX_DEPTH = 10_000
Content = bytes | mmap.mmap
Path = tuple[str, ...]
"""The names of the members on the way to a value; an element of a list has the name `*`."""
Partly = Callable[[Path], bool]
"""Says of which lists and objects a part may be kept."""
Document = TypeVar("Document")
_LISTS = re.compile(rb"(?:\[\s*)+")


class Beginning(NamedTuple):
    """The well-formed beginning of a value."""

    text: bytes
    end: int
    """Where the value ends, or where it is damaged."""
    whole: bool


@dataclass
class _Open:
    path: Path
    is_list: bool
    good: int
    """After its last whole element, or after its bracket."""
    kept: bool
    elements: int = 0
    key: str = ""


def beginning(content: Content, partial: Partly, at: int = 0) -> Beginning:
    """Return what is whole of the value that begins at `at`.

    `partial` says of which lists and objects a part may be kept.
    """
    stack: list[_Open] = []
    start = at
    state = "value"
    while True:
        numbers = _NUMBERS.match(content, at) if state != "colon" and _in_list(stack) else None
        if numbers is not None and state in ("value", "value or end"):
            at, state = numbers.end(), "value"
            stack[-1].good = at - 1
            stack[-1].elements += 1
            continue
        token = _TOKEN.match(content, at)
        after = _next(stack, state, token, content, partial) if token is not None else None
        if token is None or after is None:
            return Beginning(_closed(content, start, stack), at, whole=False)
        at, state = token.end(), after
        if not stack:
            return Beginning(content[start:at], at, whole=True)


def _in_list(stack: list[_Open]) -> bool:
    return bool(stack) and stack[-1].is_list


def _next(
    stack: list[_Open],
    state: str,
    token: re.Match[bytes],
    content: Content,
    partial: Partly,
) -> str | None:
    """Take a token; return what may follow it, null when it may not be here."""
    mark = token["mark"]
    top = stack[-1] if stack else None
    if mark is None:
        if top is not None and state in ("key", "key or end"):
            text = token["value"]
            top.key = text[1:-1].decode("utf-8", "replace")
            return "colon" if text[:1] == b'"' else None
        return _ended(stack, token.end()) if state in ("value", "value or end") else None
    if mark in b"{[":
        if state not in ("value", "value or end") or len(stack) >= _MAX_DEPTH:
            return None
        path: Path = () if top is None else (*top.path, "*" if top.is_list else top.key)
        kept = partial(path) and (top is None or top.kept)
        # A path is only asked for while parts are kept.
        stack.append(_Open(path if kept else (), mark == b"[", token.end(), kept))
        return "value or end" if mark == b"[" else "key or end"
    if mark in b"}]":
        if top is None or state not in ("comma", "value or end", "key or end"):
            return None
        if top.is_list != (mark == b"]"):
            return None
        stack.pop()
        return _ended(stack, token.end())
    if mark == b":":
        return "value" if state == "colon" else None
    return ("value" if _in_list(stack) else "key") if state == "comma" else None


def _ended(stack: list[_Open], at: int) -> str:
    if stack:
        stack[-1].good = at
        stack[-1].elements += 1
    return "comma"


def _closed(content: Content, start: int, stack: list[_Open]) -> bytes:
    kept = [one for one in stack if one.kept]
    if not kept:
        return b""
    text = bytearray(content[start : kept[-1].good])
    inner = False
    for one in reversed(kept):
        if one.is_list:
            text += b"]"
        else:
            comma = b"," if one.elements or inner else b""
            text += b'%b"%b":true}' % (comma, CUT.encode())
        inner = True
    return bytes(text)


def until_bad_text(content: Content) -> Content:
    """Return a content up to where it is no UTF-8."""
    try:
        str(memoryview(content), "utf-8")
    except UnicodeDecodeError as error:
        return content[: error.start]
    return content


def members(
    content: Content, at: int, partial: Partly, *names: str
) -> Iterator[tuple[str, Beginning]]:
    """Yield (name, value) of the members with these names after a damage, wherever they are."""
    found = re.compile(rb'"(%b)"\s*+:\s*+(?=[\[{"\d-])' % "|".join(names).encode())
    while (match := found.search(content, at)) is not None:
        name = match[1].decode()
        value = beginning(content, functools.partial(_within, partial, name), match.end())
        if value.text:
            yield name, value
        at = max(match.end(), value.end)


def _within(partial: Partly, name: str, path: Path) -> bool:
    return partial((name, *path))


def decoded(text: bytes, decoder: msgspec.json.Decoder[Document]) -> Document | None:
    """Read what was kept; null when it is not of the format."""
    try:
        return decoder.decode(text) if text else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def damaged(
    content: Content, decoder: msgspec.json.Decoder[Document], partly: Partly
) -> Document | None:
    """Read what is whole of a damaged text; null when there is nothing, or it is not damaged."""
    part = beginning(until_bad_text(content), partly)
    return None if part.whole else decoded(part.text, decoder)


def lists(head: bytes) -> Partly:
    """Say of a list of lists of records: lists are kept in part, and their records as a whole."""
    opens = _LISTS.search(head)
    depth = opens[0].count(b"[") - 1 if opens is not None else 0
    return lambda path: len(path) < depth and all(name == "*" for name in path)


def pass_over(source: Source, at: int, size: int) -> None:
    """Say where a document is damaged."""
    source.pass_over(
        InputError(
            f"{'cut off' if at >= size else 'damaged'}: what is whole before is kept, of what "
            f"comes after what can be told, of {size} bytes",
            where=f"{source}, byte {at}",
        )
    )
