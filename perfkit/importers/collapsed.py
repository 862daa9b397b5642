"""Collapsed stacks: py-spy's `-f raw`, and what flamegraph.pl reads."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

from perfkit.capture import CaptureWriter
from perfkit.errors import InputError
from perfkit.formats.collapsed import Collapsed
from perfkit.importers.base import HEAD_BYTES, Format, Source

NAME = "collapsed"
FORMAT = Format(
    title="Collapsed stacks",
    made_by="`py-spy record -f raw`, `stackcollapse-*.pl`",
    recognised_by="lines of `frame;frame count`",
    gives="samples with counts",
    lacks="times",
    tried="py-spy 0.4.3",
)

_SNIFFED_LINES = 50
_BATCH_LINES = 100_000
_LINE = re.compile(rb"\S.*\s\d+\s*")


def sniff(head: bytes, path: Path) -> bool:
    """Recognise lines that end with a count, of which some have several frames."""
    del path
    lines = head.split(b"\n")
    if len(head) == HEAD_BYTES:
        lines.pop()  # cut in the middle
    lines = list(islice((line for line in lines if line.strip()), _SNIFFED_LINES))
    several = any(b";" in line for line in lines)
    return several and all(_LINE.fullmatch(line) for line in lines)


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all stacks."""
    stacks = Collapsed(writer.stacks)
    for number, line in source.lines():
        try:
            good = stacks.add(line.decode())
        except UnicodeDecodeError:
            good = False
        if not good:
            source.pass_over(
                InputError(
                    "not a stack and its count (`frame;frame;frame 12`)",
                    where=f"{source}, line {number}",
                )
            )
        if number % _BATCH_LINES == 0:
            writer.add(stacks.finish())
    writer.add(stacks.finish())
    writer.note(
        f"{source.name} has counts of stacks without times: its samples are in no time range "
        "and in no request"
    )
