"""Finds a symbol of a program that runs: where in its memory a global variable of C lies."""

from __future__ import annotations

import os
import stat
import struct
from typing import BinaryIO, NamedTuple

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_DYNAMIC_SYMBOLS, _SYMBOLS = 11, 2
_SHARED = 3
# ELF, 64 bits, little-endian: x86-64 and aarch64
_MAGIC = b"\x7fELF\x02\x01"
_MAX_SECTION_BYTES = 64 << 20


class Symbol(NamedTuple):
    """A variable in a file: its address there, its size, and whether the file can be moved."""

    address: int
    size: int
    movable: bool


def find(file: BinaryIO, name: bytes) -> Symbol | None:
    """Find a defined symbol of a 64-bit little-endian ELF file; null when there is none."""
    head = file.read(_HEADER.size)
    if len(head) < _HEADER.size or not head.startswith(_MAGIC):
        return None
    fields = _HEADER.unpack(head)
    kind, table, entry_size, count = fields[1], fields[6], fields[11], fields[12]
    if entry_size != _SECTION.size:
        return None
    file.seek(table)
    sections = list(_SECTION.iter_unpack(file.read(count * entry_size)))
    for section in sections:
        if section[1] not in (_DYNAMIC_SYMBOLS, _SYMBOLS) or section[6] >= len(sections):
            continue
        names = _content(file, sections[section[6]])
        place = names.find(b"\0" + name + b"\0") + 1
        if not place:
            continue
        symbols = _content(file, section)
        for symbol in _SYMBOL.iter_unpack(symbols[: len(symbols) // _SYMBOL.size * _SYMBOL.size]):
            if symbol[0] == place and symbol[3]:
                return Symbol(symbol[4], symbol[5], kind == _SHARED)
    return None


def _find_in(path: str, name: bytes) -> Symbol | None:
    # The program decides what is there now: a pipe must not keep us waiting.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return None
        return find(file, name)


def _content(file: BinaryIO, section: tuple[int, ...]) -> bytes:
    if section[5] > _MAX_SECTION_BYTES:
        return b""
    file.seek(section[4])
    return file.read(section[5])


def locate(pid: int, name: bytes, libraries: str) -> tuple[int, int] | None:
    """Return address and size of a variable in the memory of a process; null when not found.

    It is looked for in the executable and in the mapped files whose name contains `libraries`.
    Raises OSError when the process may not be looked into or is gone.
    """
    executable = os.readlink(f"/proc/{pid}/exe")
    starts: dict[str, int] = {}
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            # start-end, rights, offset, device, inode, path
            parts = line.split(None, 5)
            if len(parts) == 6 and int(parts[2], 16) == 0:
                starts.setdefault(parts[5].rstrip("\n"), int(parts[0].partition("-")[0], 16))
    for path, start in starts.items():
        if path == executable:
            real = f"/proc/{pid}/exe"
        elif libraries in os.path.basename(path):
            real = f"/proc/{pid}/root{path}"  # as that process sees it, in a container too
        else:
            continue
        try:
            symbol = _find_in(real, name)
        except (FileNotFoundError, ValueError, OverflowError, struct.error):
            continue  # replaced by an upgrade since it was loaded, or damaged
        if symbol is not None:
            return symbol.address + (start if symbol.movable else 0), symbol.size
    return None
