"""What the user names to be imported: files, directories, patterns, `-`, and archives of files."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from perfkit.capture import SUFFIX
from perfkit.errors import InputError
from perfkit.importers import archives, compression
from perfkit.importers.base import MARK, Source

STDIN = "-"
SMALL_BYTES = 1 << 20
"""Files up to here are read once, and what is to be known of them is told from their content."""
_SQLITE_SIDECARS = ("-wal", "-shm", "-journal")


@dataclass(frozen=True)
class Input:
    """One file to be read; `named` is whether the user named it himself, not its folder."""

    path: Path
    label: str
    named: bool
    bytes: int


@dataclass
class Seen:
    """Which contents were already read, so that a copy changes nothing."""

    _first: dict[int, Path] = field(default_factory=dict)
    """The only file of a size so far, of which no digest was needed yet."""
    _digests: dict[int, set[str]] = field(default_factory=dict)

    def is_copy(self, source: Source, *, lasting: bool) -> bool:
        """Whether an equal content came before, compressed or not.

        Contents are only looked at when sizes are equal, or when they are compressed: then what is
        in them counts. `lasting` says that the file will still be there when it is to be compared.
        """
        if source.content is not None:
            return self._is_copy(source.size_bytes, hashlib.blake2b(source.content).hexdigest())
        if source.compressed:
            inflated = _inflated(source)
            return inflated is not None and self._is_copy(*inflated)
        size = source.path.stat().st_size
        first = self._first.pop(size, None)
        if first is not None:
            self._digests.setdefault(size, set()).add(_digest(first))
        if size not in self._digests and lasting:
            self._first[size] = source.path
            return False
        return self._is_copy(size, _digest(source.path))

    def _is_copy(self, size: int, own: str) -> bool:
        first = self._first.pop(size, None)
        digests = self._digests.setdefault(size, set())
        if first is not None:
            digests.add(_digest(first))
        copy = own in digests
        digests.add(own)
        return copy


def _inflated(source: Source) -> tuple[int, str] | None:
    """Return size and digest of what is in a compressed file; null when that is damaged."""
    digest, size = hashlib.blake2b(), 0
    try:
        for chunk in source.chunks(quietly=True):
            digest.update(chunk)
            size += len(chunk)
    except InputError:  # it is said when the file is read
        return None
    return size, digest.hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def expand(arguments: Iterable[Path], temporary: Path) -> list[Input]:
    """Return each file once, in order. Standard input is put into the folder `temporary`.

    Raises InputError when there is no such file.
    """
    seen: set[tuple[int, int]] = set()
    found: list[Input] = []
    for argument in arguments:
        for path, label, named in _files(argument, temporary):
            about = path.stat() if named else _stat_of_file(path)
            if about is not None and (about.st_dev, about.st_ino) not in seen:
                seen.add((about.st_dev, about.st_ino))
                found.append(Input(path, label, named, about.st_size))
    return found


def _stat_of_file(path: Path) -> os.stat_result | None:
    """Return size and identity of a file; null for what is none, as a link to nowhere."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise
    return found if stat.S_ISREG(found.st_mode) else None


def _files(argument: Path, temporary: Path) -> Iterator[tuple[Path, str, bool]]:
    if str(argument) == STDIN:
        yield _standard_input(temporary), "standard input", True
    elif argument.is_dir():
        for path in _walk(argument):
            yield path, str(path), False
    elif argument.exists():
        yield argument, str(argument), True
    else:
        matches = [Path(match) for match in sorted(glob.glob(str(argument), recursive=True))]
        matches = [match for match in matches if match.exists()]
        if not matches:
            raise InputError("no such file", where=str(argument))
        for match in matches:
            yield from _files(match, temporary)


def _standard_input(temporary: Path) -> Path:
    path = temporary / "standard-input"
    if not path.exists():  # given twice, it is the same
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file, compression.CHUNK_BYTES)
    return path


def _walk(directory: Path) -> Iterator[Path]:
    """Yield the files below a directory in order, without hidden ones and captures."""
    for folder, subfolders, names in os.walk(directory):
        subfolders[:] = sorted(
            name for name in subfolders if name[0] != "." and not name.endswith(SUFFIX)
        )
        for name in sorted(names):
            sidecar = name.endswith(_SQLITE_SIDECARS) and name.rpartition("-")[0] in names
            if name[0] != "." and not sidecar:
                yield Path(folder) / name


def small_content(one: Input) -> bytes | None:
    """Return the content of a small file; null when it is large, compressed or an archive."""
    if not 0 < one.bytes <= SMALL_BYTES:  # pipes have no size
        return None
    with one.path.open("rb", buffering=0) as file:
        content = file.read(one.bytes + 1)
    if len(content) != one.bytes or compression.name(content) or archives.begins(content):
        return None
    return content.removeprefix(MARK)


def unpacked(one: Input, temporary: Path) -> Iterator[Input]:
    """Yield a file itself, or the files in it when it is an archive, each gone after its turn.

    Raises InputError when the archive is damaged or looks like a bomb.
    """
    if not archives.is_archive(one.path):
        yield one
        return
    with tempfile.TemporaryDirectory(dir=temporary) as folder:
        for path, member in archives.members(one.path, one.label, Path(folder)):
            yield Input(path, f"{one.label}!{member}", False, path.stat().st_size)
            path.unlink(missing_ok=True)
