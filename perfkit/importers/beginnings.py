"""Files that are the beginning of another: a log that grew, beside a copy of it from before.

Its rows have no ids by which they could be told again. The longer file has all that the shorter
one has, a line that was cut at its end included, so that the shorter one need not be read at all.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from perfkit.errors import InputError
from perfkit.importers import archives
from perfkit.importers.base import MARK, Source
from perfkit.importers.compression import CHUNK_BYTES, Stream
from perfkit.importers.compression import name as compression_name
from perfkit.importers.inputs import Input

_HEAD_BYTES = 1024
"""So much of every file is looked at; of those that begin alike all that is needed."""


@dataclass(eq=False)
class _Content:
    """One file, by what is in it."""

    file: Input
    head: bytes
    damaged: bool = False
    """Whether something in it could not be read: then it is not known how it goes on."""

    def stream(self) -> Stream:
        return Stream(self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        try:
            yield from Source(self.file.path).chunks(quietly=True)
        except (InputError, OSError):  # it is said when the file is read
            self.damaged = True


class Contents:
    """Files that are there all the time, in the order of what is in them."""

    def __init__(self, files: Iterable[Input], reads: Callable[[Input], bool]) -> None:
        """Archives are not looked into, and damaged files are left out.

        Those that begin alike are only read whole where one of them is what `reads` is true of.
        """
        found = (one for file in files if (one := _content(file)) is not None)
        self._reads = reads
        self._longer: dict[Path, Input] = {}
        self._contents: list[_Content] = []
        """In their order, but for runs of which nothing is read."""
        for alike in _runs(sorted(found, key=lambda one: one.head)):
            worth = len(alike) > 1 and any(reads(one.file) for one in alike)
            self._contents += self._in_order(alike) if worth else alike
        self._heads = [one.head for one in self._contents]

    def _in_order(self, alike: list[_Content]) -> list[_Content]:
        """Return them in their order; note which are the beginning of another."""
        compared = _Compared()
        ordered = sorted(alike, key=functools.cmp_to_key(compared.order))
        whole = [one for one in ordered if not one.damaged]
        # What is between a content and a longer one in this order begins with it, too.
        for short, following in reversed(list(itertools.pairwise(whole))):
            begins, equal = compared.begins(short, following)
            last = self._longer.get(following.file.path)
            damaged = short.damaged or following.damaged
            if begins and not damaged and (last or not equal):
                self._longer[short.file.path] = last or following.file
        return ordered

    def longer(self, file: Input) -> Input | None:
        """Return a file that begins with all of one of these, and is the beginning of no other."""
        return self._longer.get(file.path)

    def longer_than_member(self, member: Input) -> Input | None:
        """Return one of these that begins with all of a file from an archive, and goes on."""
        own = _content(member) if self._contents else None
        if own is None:
            return None
        # What begins with it comes right after it: few are compared, however many begin alike.
        first = bisect.bisect_left(self._heads, own.head)
        after = bisect.bisect_right(
            self._contents, 0, lo=first, hi=self._end(first, own.head), key=_against(own)
        )
        for one in itertools.islice(self._contents, after, None):
            if not _compared(own, one)[1] or own.damaged:
                break
            if self._reads(one.file) and not one.damaged:
                return self.longer(one.file) or one.file
        return None

    def _end(self, first: int, head: bytes) -> int:
        """Return the place after the last content whose head begins with another."""
        return bisect.bisect_left(
            self._heads, True, lo=first, key=lambda one: not one.startswith(head)
        )


def _against(own: _Content) -> Callable[[_Content], int]:
    """Return what is negative for contents before one, 0 for equal ones, and positive after it."""
    return lambda one: -_compared(own, one)[0]


def _content(file: Input) -> _Content | None:
    """Return a file with its head; null where that is empty, an archive or damaged."""
    try:
        head = _head(file.path) if file.bytes else b""  # pipes have no size
        if archives.begins(head):
            return None
        if compression_name(head) is None:
            head = head.removeprefix(MARK)
        else:
            head = Stream(Source(file.path).chunks(quietly=True)).read(_HEAD_BYTES)
            if archives.begins(head):
                return None
    except (InputError, OSError):
        return None
    return _Content(file, head[:_HEAD_BYTES]) if head else None


def _head(path: Path) -> bytes:
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(opened, _HEAD_BYTES + len(MARK))
    finally:
        os.close(opened)


def _runs(contents: list[_Content]) -> Iterator[list[_Content]]:
    """Yield those that begin alike, of contents in the order of their heads."""
    run: list[_Content] = []
    for one in contents:
        if run and not one.head.startswith(run[-1].head):
            yield run
            run = []
        run.append(one)
    if run:
        yield run


class _Compared:
    """Contents that were compared: each two are read once, as they may be large."""

    def __init__(self) -> None:
        self._found: dict[frozenset[_Content], tuple[bool, bool]] = {}

    def order(self, one: _Content, other: _Content) -> int:
        """Return which is first, as negative, 0 or positive."""
        order, begins = _compared(one, other)
        self._found[frozenset((one, other))] = begins, order == 0
        return order

    def begins(self, one: _Content, other: _Content) -> tuple[bool, bool]:
        """Return whether one is the beginning of the other, and whether they are equal."""
        both = frozenset((one, other))
        if both not in self._found:
            self.order(one, other)
        return self._found[both]


def _compared(one: _Content, other: _Content) -> tuple[int, bool]:
    """Return which is first, as negative, 0 or positive; and whether the other begins with it."""
    left, right = one.stream(), other.stream()
    while True:
        a, b = left.read(CHUNK_BYTES), right.read(CHUNK_BYTES)
        if a != b:
            return (-1 if a < b else 1), a.startswith(b) or b.startswith(a)
        if not a:
            return 0, True
