"""Protobuf's wire format, walked by NumPy: the fields of many messages at once, in lock step.

In step n the n-th field of every message is read, so the number of steps is that of the fields of
the longest message, and each step is a few operations on arrays.
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfkit.formats.wire_fields import FIXED32, FIXED64, LENGTH, VARINT

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Bools = NDArray[np.bool_]

_IS_SIZED = np.isin(np.arange(8), (VARINT, LENGTH))
_IS_KNOWN = np.isin(np.arange(8), (VARINT, LENGTH, FIXED64, FIXED32))
_FIXED_BYTES = np.array([0, 8, 0, 0, 0, 4, 0, 0])
_PADDING = bytes(80)
"""What may be read beyond the end: a chunk, and a tag before it."""
_MAX_STEPS = 1024
_LONG = 1024
_CHUNK_BYTES = 64
_BLOCK = 8192
"""So many parts are hashed at a time: what fits into a processor's nearer cache."""
_LOW_BYTES = np.array([(1 << 8 * count) - 1 for count in range(9)], dtype=np.uint64)
# Random, so that nobody can send what collides.
_SEED = int.from_bytes(os.urandom(8), "little")
_FACTORS = np.frombuffer(os.urandom(8 * 64), dtype=np.uint64) | np.uint64(1)


class NotPlain(ValueError):
    """Something that this walk leaves to protobuf's own parser: damaged, or merely unusual."""


@dataclass(frozen=True)
class Fields:
    """The n-th fields of some messages: arrays of equal length."""

    message: Ints
    """Which message."""
    number: Ints
    wire: Ints
    start: Ints
    """Where the value begins, after its length if it has one."""
    length: Ints
    """Of the value in bytes; of a varint its value."""


class Values(NamedTuple):
    """The values of one field in some messages."""

    message: Ints | slice
    """Which messages; a slice of all of them when all have it."""
    start: Ints
    length: Ints
    """Of the value in bytes; of a varint its value."""


class Buffer:
    """Bytes to walk over."""

    def __init__(self, parts: Sequence[bytes]) -> None:
        """Join messages; `starts` and `ends` say where each lies."""
        self.raw = b"".join([*parts, _PADDING])
        lengths = np.fromiter(map(len, parts), np.int64, len(parts))
        self.ends: Ints = np.cumsum(lengths)
        self.starts: Ints = self.ends - lengths
        self._bytes = self._at_every_byte("u1")
        self._pairs = self._at_every_byte("<u2")
        self._words = self._at_every_byte("<u8")
        self._big = self._at_every_byte(">i8")
        self._chunks = self._at_every_byte(f"V{_CHUNK_BYTES}")

    def _at_every_byte(self, dtype: str) -> NDArray[Any]:
        """Return what begins at every byte, read as a type."""
        count = len(self.raw) - np.dtype(dtype).itemsize + 1
        return np.ndarray((count,), dtype, self.raw, strides=(1,))

    def fixed64(self, at: Ints) -> Hashes:
        """Return little-endian words, as protobuf writes fixed64."""
        return self._words[at]

    def big_endian(self, at: Ints) -> Ints:
        """Return signed big-endian words, as ids are written."""
        return self._big[at].astype(np.int64)

    def slices(self, at: Ints, length: Ints) -> Iterator[bytes]:
        """Yield parts as bytes."""
        raw = self.raw
        for begin, size in zip(at.tolist(), length.tolist(), strict=True):
            yield raw[begin : begin + size]

    def take(self, at: Ints, ends: Ints, number: int, wire: int) -> Values | None:
        """Read the next field of those messages in which it is the one of this number, below 16.

        Moves their `at` behind it. Raises NotPlain for a value that does not fit into its message.
        """
        pairs = self._pairs[at]
        mine = ((pairs & 0xFF) == (number << 3 | wire)) & (at < ends)
        message: Ints | slice = slice(None)
        if not mine.all():
            message = np.flatnonzero(mine)
            if not message.size:
                return None
        start, length, following = self._values(at[message], pairs[message], wire)
        if (following > ends[message]).any():
            raise NotPlain
        at[message] = following
        return Values(message, start, length)

    def take_repeated(self, at: Ints, ends: Ints, number: int) -> Iterator[Values]:
        """Read fields with a length, of this number below 16, while they follow each other.

        Yields the first one of all messages, then the second one, and so on; moves `at` behind
        them. Raises NotPlain as `walk` does.
        """
        tag = number << 3 | LENGTH
        pairs = self._pairs[at]
        message = np.flatnonzero(((pairs & 0xFF) == tag) & (at < ends))
        here, end, pairs = at[message], ends[message], pairs[message]
        for _ in range(_MAX_STEPS):
            if not message.size:
                return
            start, length, here = self._values(here, pairs, LENGTH)
            if (here > end).any():
                raise NotPlain
            yield Values(message, start, length)
            pairs = self._pairs[here]
            goes_on = ((pairs & 0xFF) == tag) & (here < end)
            if not goes_on.all():
                at[message[~goes_on]] = here[~goes_on]
                message, here, end = message[goes_on], here[goes_on], end[goes_on]
                pairs = pairs[goes_on]
        raise NotPlain

    def _values(self, at: Ints, pairs: NDArray[np.uint16], wire: int) -> tuple[Ints, Ints, Ints]:
        """Return where values begin, their lengths, and where they end, after tags of one byte.

        `pairs` are the tags, each with the byte that follows.
        """
        if wire == FIXED64:
            return at + 1, np.full(len(at), 8), at + 9
        value = (pairs >> 8).astype(np.int64)
        after = at + 2
        longer = np.flatnonzero(value >= 0x80)
        if longer.size:
            value[longer], after[longer], whole = self._varints(at[longer] + 1)
            if not whole.all():
                raise NotPlain
        return after, value, after if wire == VARINT else after + value

    def in_a_row(self, first: Ints, lengths: Ints, rows: Ints, number: int) -> Ints:
        """Return where values begin whose fields, of this number below 16, follow each other.

        `lengths` are those of all values, `rows` how many of them follow each other, and `first`
        where the first field of such a row begins. Raises NotPlain where it is not so.
        """
        header = 2 + sum(
            (lengths >= limit).astype(np.int64) for limit in (1 << 7, 1 << 14, 1 << 21)
        )
        ends = np.cumsum(header + lengths)
        before = np.append(0, ends)[np.cumsum(rows) - rows]
        at = ends - header - lengths + np.repeat(first - before, rows)
        if at.size and (int(at.min()) < 0 or int(at.max()) >= len(self.raw) - len(_PADDING)):
            raise NotPlain
        said, after, whole = self._varints(at + 1)
        right = whole & (said == lengths) & (after - at == header)
        if not (right & (self._bytes[at] == (number << 3 | LENGTH))).all():
            raise NotPlain
        return after

    def walk(self, starts: Ints, ends: Ints) -> Iterator[Fields]:
        """Yield the first fields of all messages, then the second ones, and so on.

        Raises NotPlain for groups, for a value that does not fit into its message, for varints of
        more than four bytes, and for messages of very many fields.
        """
        message = np.flatnonzero(starts < ends)
        at, end = starts[message], ends[message]
        for _ in range(_MAX_STEPS):
            if not message.size:
                return
            tag, at, whole = self._varints(at)
            wire = tag & 7
            # Read where a length or a varint would be, and used only where there is one.
            number, after, whole_value = self._varints(at)
            sized = _IS_SIZED[wire]
            value = np.where(sized, after, at)
            length = np.where(sized, number, _FIXED_BYTES[wire])
            following = np.where(wire == VARINT, after, value + length)
            if (following > end).any() or not (whole & (whole_value | ~sized)).all():
                raise NotPlain
            if not (_IS_KNOWN[wire] & (tag >= 8)).all():
                raise NotPlain
            yield Fields(message, tag >> 3, wire, value, length)
            goes_on = following < end
            if goes_on.all():
                at = following
            else:
                message, at, end = message[goes_on], following[goes_on], end[goes_on]
        raise NotPlain

    def _varints(self, at: Ints) -> tuple[Ints, Ints, Bools]:
        """Read varints of up to four bytes; return them, where they end, and whether they do."""
        first = self._bytes[at]
        value = first.astype(np.int64)
        after = at + 1
        longer = np.flatnonzero(first >= 0x80)
        if longer.size:
            value[longer] &= 0x7F
            for shift in (7, 14, 21):
                byte = self._bytes[after[longer]].astype(np.int64)
                value[longer] |= (byte & 0x7F) << shift
                after[longer] += 1
                longer = longer[byte >= 0x80]
                if not longer.size:
                    break
        whole = np.ones(len(at), dtype=np.bool_)
        whole[longer] = False
        return value, after, whole

    def hashes(self, at: Ints, length: Ints) -> Hashes:
        """Return a hash of 64 bits of each part."""
        order = np.argsort(np.minimum(length, _LONG + 1).astype(np.uint16), kind="stable")
        at, length = at[order], length[order]
        hashed = length.astype(np.uint64) * _FACTORS[0] ^ np.uint64(_SEED)
        short = int(np.searchsorted(length, _LONG, side="right"))
        for begin in range(0, short, _BLOCK):
            end = min(begin + _BLOCK, short)
            self._mix(hashed[begin:end], at[begin:end], length[begin:end])
        for place, part in enumerate(self.slices(at[short:], length[short:]), short):
            hashed[place] ^= np.uint64(hash(part) & (2**64 - 1))
        result: Hashes = np.empty_like(hashed)
        result[order] = hashed * _FACTORS[-1]
        return result

    def _mix(self, hashed: Hashes, at: Ints, length: Ints) -> None:
        """Mix parts into their hashes, eight bytes after the other; the shortest come first."""
        shortest, longest = int(length[0]), int(length[-1])

        def longer_than(offset: int) -> int:
            return int(np.searchsorted(length, offset, side="right")) if offset >= shortest else 0

        for first in range(0, longest, _CHUNK_BYTES):
            begin = longer_than(first)
            words = self._chunks[at[begin:] + first].view("<u8").reshape(-1, _CHUNK_BYTES // 8)
            for offset in range(first, min(first + _CHUNK_BYTES, longest), 8):
                there = longer_than(offset)
                word = words[there - begin :, (offset - first) // 8]
                if shortest < offset + 8:
                    word = word & _LOW_BYTES[np.minimum(length[there:] - offset, 8)]
                mixed = hashed[there:]
                mixed ^= word
                mixed *= _FACTORS[(offset >> 3) % len(_FACTORS)]
                mixed ^= mixed >> np.uint64(29)


def distinct(hashes: Hashes) -> tuple[Ints, Ints]:
    """Number equal values: return for each its number, and for each number one that has it.

    A hash table without a loop: all values are written to their places at once, and those that do
    not find themselves there (the place was taken by another) try again elsewhere.
    """
    count = len(hashes)
    bits = max(count - 1, 1).bit_length() + 1
    table = np.empty(1 << bits, dtype=np.int64)
    shift = np.uint64(64 - bits)
    everyone = np.arange(count)
    representative: Ints = everyone
    waiting: Ints = everyone
    own = hashes
    for turn, factor in enumerate(np.resize(_FACTORS, 1000)):
        place = ((own * factor) >> shift).view(np.int64)
        table[place] = waiting
        winner = table[place]
        if turn:
            representative[waiting] = winner
        else:
            representative = winner
        waiting = waiting[hashes[winner] != own]
        if not waiting.size:
            break
        own = hashes[waiting]
    else:
        raise NotPlain
    firsts = np.flatnonzero(representative == everyone)
    number = np.empty(count, dtype=np.int64)
    number[firsts] = np.arange(len(firsts))
    return number[representative], firsts
