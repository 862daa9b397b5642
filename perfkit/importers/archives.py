"""Archives of files: zip, and tar in every compression, unpacked one member at a time.

Hostile archives: names of members are only shown, and never used as a path; links, devices and
encrypted members are passed over; sizes are counted as they are unpacked and not believed.
"""

from __future__ import annotations

import errno
import itertools
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self, cast

from perfkit.errors import InputError
from perfkit.importers import compression

MAX_MEMBERS = 100_000
_TAR_MAGIC_AT, _TAR_MAGIC = 257, b"ustar"
_BLOCK_BYTES = 512
_MAX_HEADER_BYTES = 1 << 20
_HEADERS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error),
    *(EOFError, OSError, ValueError, LookupError, ArithmeticError),
)


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or a tar, as its first bytes say."""
    with path.open("rb") as file:
        head = file.read(_BLOCK_BYTES)
        if begins(head):
            return True
        if compression.name(head) is None:
            return False
        file.seek(0)
        try:
            return _is_tar(
                compression.Stream(compression.inflate(file, str(path))).read(_BLOCK_BYTES)
            )
        except InputError:
            return False


def begins(head: bytes) -> bool:
    """Whether a content begins as a zip or a tar does."""
    return head.startswith(b"PK\x03\x04") or _is_tar(head)


def _is_tar(block: bytes) -> bool:
    return block[_TAR_MAGIC_AT:].startswith(_TAR_MAGIC)


def members(path: Path, label: str, folder: Path) -> Iterator[tuple[Path, str]]:
    """Unpack member after member into `folder`; yields each with its name as it may be shown.

    Raises InputError when the archive is damaged or looks like a bomb.
    """
    numbers = itertools.count(1)
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    try:
        for name, content in _zip(path, label) if is_zip else _tar(path, label):
            parts = name.replace("\\", "/").split("/")
            if any(part.startswith(".") and part not in (".", "..") for part in parts):
                continue  # hidden, as in directories
            if "__MACOSX" in parts:
                continue
            number = next(numbers)
            if number > MAX_MEMBERS:
                raise InputError(f"more than {MAX_MEMBERS} files in it", where=label)
            target = folder / f"{number:06d}"
            with target.open("wb") as out:
                for chunk in content:
                    out.write(chunk)
            yield target, _shown(name)
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # of this machine, as a full disk; EINVAL is a wrong place in the archive
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"damaged archive ({reason})", where=label) from error
    except (NotImplementedError, RuntimeError) as error:
        raise InputError(f"archive of a kind that cannot be read ({error})", where=label) from error


def _shown(name: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in name)[:300]


def _zip(path: Path, label: str) -> Iterator[tuple[str, Iterator[bytes]]]:
    given = 0
    size = path.stat().st_size

    def content(member: IO[bytes]) -> Iterator[bytes]:
        nonlocal given
        while chunk := member.read(compression.CHUNK_BYTES):
            given += len(chunk)
            compression.check(given, size, label)
            yield chunk

    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            kind = info.external_attr >> 28
            if info.filename.endswith("/") or info.flag_bits & 1 or kind not in (0, 8):
                continue
            with archive.open(info) as member:
                yield info.filename, content(member)


def _tar(path: Path, label: str) -> Iterator[tuple[str, Iterator[bytes]]]:
    def content(member: IO[bytes]) -> Iterator[bytes]:
        while chunk := member.read(compression.CHUNK_BYTES):
            yield chunk

    with path.open("rb") as file:
        packed = compression.name(file.read(compression.MAGIC_BYTES)) is not None
        file.seek(0)
        stream = (
            cast(IO[bytes], compression.Stream(compression.inflate(file, label)))
            if packed
            else file
        )
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as archive:
            for info in archive:
                if info.isreg() and not info.issparse():
                    member = archive.extractfile(info)
                    assert member is not None
                    yield info.name, content(member)


class _Member(tarfile.TarInfo):
    """One whose headers are of a sensible length: tarfile takes them into memory whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str | None, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)  # type: ignore[arg-type]
        if member.type in _HEADERS and member.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {member.size} bytes")
        return member
