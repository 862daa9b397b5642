"""A large JSON array, element by element: of a damaged document what comes before the damage."""

from __future__ import annotations

import functools
import mmap
import re
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from perfkit.errors import InputError
from perfkit.importers import json_prefix, places
from perfkit.importers.base import Source

BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding foreign JSON may raise."""

_MAX_DEPTH = 1000
_SHARES = 200
_MAX_RECORD_BYTES = 1 << 20
_MAX_OPEN = 1000
_array = msgspec.json.Decoder(list[msgspec.Raw])
# A whole string, or a bracket, or the quote of a string that does not end. Possessive, so that the
# latter is found out in one go.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[][{}"]', re.DOTALL)
_AFTER = re.compile(rb'\s*(?:\}|,\s*"|\Z)')
_OPENS = re.compile(rb"\s*:\s*\[")
_BETWEEN = re.compile(rb"[\s,]*")
# An object in a line of its own, or a list in one and another in the next.
_LINE = re.compile(rb"\s*+(?:\{[^\n]*\}[ \t\r]*(?:\n|\Z)|\[[^\n]*\][ \t\r]*\n\s*\[)")
_Document = TypeVar("_Document")


def elements(
    source: Source,
    content: bytes | mmap.mmap,
    *keys: str,
    partly: json_prefix.Partly | None = None,
) -> Iterator[tuple[str, msgspec.Raw | bytes]]:
    """Yield (place, text) of each element of an array.

    The array is the document, or the member of the outermost object with one of these names.
    Raises InputError where the document is damaged, after all elements before; with `--keep-going`
    also after what is whole of the damaged one, of which `partly` says what may be kept.
    """
    found = whole(content, *keys)
    if found is None:
        yield from _salvaged(source, content, keys, partly)
        return
    total = len(found)
    every = total // _SHARES + 1
    found.reverse()  # each is let go after its turn
    for number in range(1, total + 1):
        if number % every == 0:
            source.share(number / total)
        yield f"{source}, element {number}", found.pop()


def whole(content: bytes | mmap.mmap, *keys: str) -> list[msgspec.Raw] | None:
    """Return all elements when the document is well-formed and has them."""
    try:
        if content[:64].lstrip()[:1] == b"[":
            return _array.decode(content)
        document = _document(keys).decode(content)
    except BAD_JSON:
        return None
    return next((found for key in keys if (found := getattr(document, key)) is not None), None)


@functools.cache
def _document(keys: tuple[str, ...]) -> msgspec.json.Decoder[msgspec.Struct]:
    members = [(key, list[msgspec.Raw] | None, None) for key in keys]
    return msgspec.json.Decoder(msgspec.defstruct("Document", members))


def _salvaged(
    source: Source,
    content: bytes | mmap.mmap,
    keys: tuple[str, ...],
    partly: json_prefix.Partly | None,
) -> Iterator[tuple[str, bytes]]:
    at = _beginning(content, keys)
    if at is None:
        wanted = " or ".join(f'"{key}"' for key in keys) or "an array"
        raise source.error(f"not JSON with {wanted} in it, or damaged before it", offset=0)
    depth = 0
    begin = at
    for token in _TOKEN.finditer(content, at):
        what = token[0]
        if what == b'"':
            break
        if what in (b"{", b"["):
            if not depth:
                begin = token.start()
            depth += 1
            if depth > _MAX_DEPTH:
                raise source.error("nested too deeply", offset=begin)
        elif what in (b"}", b"]"):
            depth -= 1
            if depth < 0:
                if what == b"]" and _AFTER.match(content, token.end()):
                    return
                break
            if not depth:
                yield f"{source}, byte {begin}", content[begin : token.end()]
                begin = token.end()
    if partly is not None and source.on_damage is not None:
        at = _end_of(_BETWEEN, content, begin)
        part = json_prefix.beginning(content, partly, at)
        if part.text and not part.whole:
            yield f"{source}, byte {at}", part.text
    raise source.error("cut off, or damaged", offset=begin)


def _end_of(pattern: re.Pattern[bytes], content: bytes | mmap.mmap, at: int) -> int:
    found = pattern.match(content, at)
    return found.end() if found is not None else at


def decode(
    source: Source,
    decoder: msgspec.json.Decoder[_Document],
    text: msgspec.Raw | bytes | mmap.mmap,
    what: str,
    place: str,
    partly: json_prefix.Partly,
) -> _Document | None:
    """Decode a text; with `--keep-going` what is whole of a damaged one, null when nothing is.

    `partly` says of which lists and objects a part may be kept.
    """
    try:
        return decoder.decode(text)
    except BAD_JSON as error:
        source.pass_over(refuse(what, place, error))
    content = text if isinstance(text, mmap.mmap) else bytes(text)
    return json_prefix.damaged(content, decoder, partly)


def balanced(content: bytes | mmap.mmap, start: int) -> bytes | None:
    """Return the text of an object; null when it does not close within 1 MiB."""
    depth = 0
    for token in _TOKEN.finditer(content, start, min(len(content), start + _MAX_RECORD_BYTES)):
        what = token[0]
        if what in (b"{", b"["):
            depth += 1
        elif what in (b"}", b"]"):
            depth -= 1
        elif what == b'"':
            return None
        if not depth:
            return content[start : token.end()]
    return None


def after(content: bytes | mmap.mmap, at: int, begins: re.Pattern[bytes]) -> Iterator[bytes]:
    """Yield the texts of the objects after a damage that begin so and are closed.

    It ends after a thousand that are not.
    """
    open_ones = 0
    while open_ones < _MAX_OPEN and (match := begins.search(content, at)) is not None:
        text = balanced(content, match.start())
        good = text is not None and _is_json(text)
        at = match.start() + len(text) if good and text else match.end()
        if good and text:
            yield text
        else:
            open_ones += 1


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text)
    except BAD_JSON:
        return False
    return True


def _beginning(content: bytes | mmap.mmap, keys: tuple[str, ...]) -> int | None:
    """Return where the elements begin, after the opening bracket."""
    start = re.match(rb"\s*([\[{])", content)
    if start is None:
        return None
    if start[1] == b"[":
        return start.end()
    names = {f'"{key}"'.encode() for key in keys}
    depth = 0
    for token in _TOKEN.finditer(content, start.end()):
        what = token[0]
        if what == b'"':
            break
        if what in (b"{", b"["):
            depth += 1
        elif what in (b"}", b"]"):
            depth -= 1
        elif not depth and what in names and (opens := _OPENS.match(content, token.end())):
            return opens.end()
    return None


def lines(source: Source) -> Iterator[tuple[str, bytes]]:
    """Yield (place, text) of each line that is not blank."""
    for number, line in source.lines():
        yield f"{source}, line {number}", line


def records(
    source: Source, partly: json_prefix.Partly | None = None
) -> Iterator[tuple[str, msgspec.Raw | bytes]]:
    """Yield (place, text) of each record: of an array, of lines, or of documents one after another.

    `partly` says what may be kept of the damaged one in an array. A line may be a list of records.
    """
    head = source.head()
    if _LINE.match(head):
        yield from lines(source)
    elif head.lstrip()[:1] == b"[":
        yield from elements(source, source.contents(), partly=partly)
    else:
        yield from _documents(source)


def _documents(source: Source) -> Iterator[tuple[str, bytes]]:
    """Yield the documents that begin at the beginning of a line; others of theirs are indented."""
    pieces: list[bytes] = []
    begin = 1
    for number, line in source.lines():
        if line[:1] == b"{" and pieces:
            yield f"{source}, line {begin}", b"\n".join(pieces)
            pieces, begin = [], number
        pieces.append(line)
    if pieces:
        yield f"{source}, line {begin}", b"\n".join(pieces)


def refuse(what: str, place: str, error: Exception) -> InputError:
    """Make the error for a part of a document that is not as it must be."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, RecursionError):
        text = places.TOO_DEEP
    return InputError(f"not {what}: {text[:200]}", where=place)
