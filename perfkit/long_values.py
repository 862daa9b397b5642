"""Values that are too long to be kept whole: each reader would need several times their size.

Senders limit values themselves, if they limit them (`OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT`), and what
is a document of many megabytes in a span says no more about its time than how it begins.
"""

from __future__ import annotations

import hashlib

import msgspec
import polars as pl

MOST_BYTES = 1 << 20
"""A longer text, or member of an object of attributes, is cut to so many bytes. Our own number:
prompts and statements are shorter."""
_REMARK_BYTES = 64
"""Room for what is said at the end: what was cut once is not cut again."""
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


def _text(text: str) -> str:
    raw = text.encode()
    kept = raw[: MOST_BYTES - _REMARK_BYTES].decode(errors="ignore")
    # Two texts that differ behind the cut must not pass for the same, say as a tool's arguments.
    digest = hashlib.blake2b(raw, digest_size=8).hexdigest()
    return f"{kept}… [cut, it had {len(raw):,} bytes, {digest}]"


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
