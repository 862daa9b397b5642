"""Where in a file an error is, of which its parser says only the path, or nothing."""

from __future__ import annotations

import itertools
import mmap
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from perfkit.importers import msgpack_prefix

Content = bytes | mmap.mmap
TOO_DEEP = "nested too deeply"

TRUNCATED = "Input data was truncated"
_PATH = re.compile(r"at (?:`key` in )?`\$([\w.\[\]]*)`$")
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")
_OF_ANOTHER_TYPE = re.compile(r"(?:^|: )(?:Expected|Object missing|Number out of range)")
# Parsers give up near a thousand; stacks of calls are seldom so deep.
_DEEP = 500
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[][{}]', re.DOTALL)
_MESSAGEPACK = b"\x80"
"""No JSON begins with such a byte."""


def offset(content: Content, message: str, part: bytes | None) -> int | None:
    """Return at which byte the value is that a message is about; null where that is not known.

    `part` is what was parsed, where that is not the whole content.
    """
    start = content.find(part) if part else 0
    if start < 0:
        return None
    text = part or content
    if message.endswith(TOO_DEEP):
        inner = _deep(text)
    elif TRUNCATED in message:
        inner = len(text)
    elif _OF_ANOTHER_TYPE.search(message):
        path = _PATH.search(message)
        inner = _walked(text, path[1] if path else "")
    else:
        inner = 0 if part else None
    return None if inner is None else start + inner


def _deep(text: Content) -> int | None:
    depth = 0
    for token in _TOKEN.finditer(text):
        if token[0] in (b"[", b"{"):
            depth += 1
            if depth >= _DEEP:
                return token.start()
        elif token[0] in (b"]", b"}"):
            depth -= 1
    return None


def _walked(text: Content, path: str) -> int | None:
    """Return where a value begins; where a member is not named, where its object does."""
    if text[:1] >= _MESSAGEPACK:
        return _walked_packed(text, path)
    value: Any = text
    try:
        for name, number in _steps(path):
            if name:
                value = msgspec.json.decode(value, type=dict[str, msgspec.Raw])[name]
            else:
                value = msgspec.json.decode(value, type=list[msgspec.Raw])[number]
    except RecursionError:
        return _deep(text)
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, IndexError):
        return None
    return _address(value) - _address(text) if value is not text else 0


def _address(text: Any) -> int:
    """Return where in memory a text is: what is left undecoded is a view of the whole."""
    return int(np.frombuffer(text, np.uint8).ctypes.data)


def _walked_packed(text: Content, path: str) -> int:
    """Do the same with MessagePack, in which also nothing behind the value may be good."""
    at = 0
    for name, number in _steps(path):
        inner = next(itertools.islice(_elements(text, at), number, None), None)
        if name or inner is None:
            break
        at = inner
    return at


def _elements(text: Content, at: int) -> Iterator[int]:
    try:
        for begin, _ in msgpack_prefix.elements(text, at):
            yield begin
    except ValueError:
        return


def _steps(path: str) -> list[tuple[str, int]]:
    named = path.partition("[...]")[0]
    return [(step[1] or "", int(step[2] or 0)) for step in _STEP.finditer(named)]
