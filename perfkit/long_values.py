"""Values that are too long to be kept whole: each reader would need several times their size.

Senders limit values themselves, if they limit them (`OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT`), and what
is a document of many megabytes in a span says no more about its time than how it begins. What
writes a table cuts and counts them (`shortened`). Before that each form of a value takes its size
once more, so who decodes it lets go of most of it already (`beginning`).
"""

from __future__ import annotations

import hashlib
import re

import msgspec
import polars as pl

MOST_BYTES = 1 << 20
"""A longer text, or member of an object of attributes, is cut to so many bytes. Our own number:
prompts and statements are shorter."""
_REMARK_BYTES = 64
"""Room for what is said at the end: what was cut once is not cut again."""
_MOST_BYTES_OF_A_LETTER = 4
_OBJECTS = ("attributes", "resource")


def shortened(frame: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Return rows of a table without values that are too long, and how many were cut."""
    cut = 0
    for column in frame.select(pl.col(pl.String)):
        name, lengths = column.name, column.str.len_bytes()
        long = (lengths > MOST_BYTES).fill_null(False).arg_true()
        if long.is_empty():
            continue
        # Only these rows are gone through one by one: there is seldom any.
        shorter = []
        for text in column.gather(long):
            kept, count = _object(text) if name in _OBJECTS else (_text(text), 1)
            shorter.append(kept)
            cut += count
        frame = frame.with_columns(column.scatter(long, shorter))
    return frame, cut


_REMARK = re.compile(r"… \[cut, it had [\d,]+ bytes, [0-9a-f]{16}\]")


def beginning(text: str) -> str:
    """Return a text; of one that is too long so much that it is still to be cut, and its remark."""
    if len(text) * _MOST_BYTES_OF_A_LETTER <= MOST_BYTES:
        return text
    raw = text.encode(errors="surrogatepass")
    if len(raw) <= MOST_BYTES or _REMARK.fullmatch(text, _remark_at(text)):
        return text
    return raw[:MOST_BYTES].decode(errors="ignore") + _remark(raw)


def _text(text: str) -> str:
    at = _remark_at(text)
    raw = text.encode()
    said = text[at:] if _REMARK.fullmatch(text, at) else _remark(raw)
    return raw[: MOST_BYTES - _REMARK_BYTES].decode(errors="ignore") + said


def _remark(raw: bytes) -> str:
    # Two texts that differ behind the cut must not pass for the same, say as a tool's arguments.
    digest = hashlib.blake2b(raw, digest_size=8).hexdigest()
    return f"… [cut, it had {len(raw):,} bytes, {digest}]"


def _remark_at(text: str) -> int:
    return max(0, text.rfind("…", -_REMARK_BYTES))


def _object(text: str) -> tuple[str, int]:
    """Cut the members of a JSON object that are too long; a list or an object becomes text."""
    try:
        members = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return _text(text), 1
    cut = 0
    for key, raw in members.items():
        if len(raw) <= MOST_BYTES:
            continue
        value = msgspec.json.decode(raw)
        said = value if isinstance(value, str) else bytes(raw).decode()
        if len(said.encode()) > MOST_BYTES:
            members[key] = msgspec.Raw(msgspec.json.encode(_text(said)))
            cut += 1
    return msgspec.json.encode(members).decode(), cut
