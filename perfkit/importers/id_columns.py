"""Ids of many spans at once: those of hexadecimal digits in columns, others as `ids` reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import polars as pl

from perfkit import ids

_SPAN_DIGITS, _TRACE_DIGITS = 16, 32
_Id = TypeVar("_Id")


def span_ids(texts: Sequence[str | None]) -> pl.Series:
    """Read span ids (Int64); null for none."""
    raw = _decoded(texts, _SPAN_DIGITS)
    found = raw.bin.reinterpret(dtype=pl.Int64, endianness="big")
    others = _others(texts, found.is_null())
    if others:
        read = _each(texts, others, ids.span_id_from_text)
        found = found.scatter(others, pl.Series(read, dtype=pl.Int64))
    return found.set(found == 0, None)


def trace_ids(texts: Sequence[str]) -> tuple[pl.Series, pl.Series]:
    """Read trace ids, as (high, low), both Int64; 0 for none."""
    raw = _decoded(texts, _TRACE_DIGITS)
    high, low = (
        raw.bin.slice(first, 8).bin.reinterpret(dtype=pl.Int64, endianness="big")
        for first in (0, 8)
    )
    others = _others(texts, high.is_null() | low.is_null())
    if others:
        read = _each(texts, others, ids.trace_id_from_text)
        high = high.scatter(others, pl.Series([one[0] for one in read], dtype=pl.Int64))
        low = low.scatter(others, pl.Series([one[1] for one in read], dtype=pl.Int64))
    return high.fill_null(0), low.fill_null(0)


def _decoded(texts: Sequence[str | None], digits: int) -> pl.Series:
    """Return the bytes of ids of so many digits or fewer; null for other texts."""
    text = pl.Series(texts, dtype=pl.String).str.zfill(digits)
    text = text.set(text.str.len_bytes() != digits, None)
    return text.str.decode("hex", strict=False)


def _others(texts: Sequence[str | None], unread: pl.Series) -> list[int]:
    return [place for place in unread.arg_true().to_list() if texts[place]]


def _each(
    texts: Sequence[str | None], places: Sequence[int], read: Callable[[str], _Id]
) -> list[_Id]:
    known: dict[str, _Id] = {}
    found = []
    for place in places:
        text = texts[place] or ""
        if text not in known:
            known[text] = read(text)
        found.append(known[text])
    return found
