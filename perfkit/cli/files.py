"""Files that commands write: found out to be writable before the work, and written whole."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from perfkit.errors import UsageError


def check_writable(target: Path) -> None:
    """Find out before the long work whether `target` can be written. Raises UsageError or OSError.

    Nothing is changed: an old file stays whole until the new one is complete.
    """
    if target.is_dir():
        raise UsageError(f"{target}: is a directory", hint="give the name of a file with -o")
    if target.exists():
        if not os.access(target, os.W_OK):
            raise UsageError(f"{target}: cannot be written", hint="choose another name with -o")
        if not target.is_file():
            return
    folder = target.parent
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such directory", hint=f"make it: mkdir -p {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{folder}: cannot be written", hint="choose another place with -o")


def write_whole(target: Path, content: bytes) -> int:
    """Write a file, whole or not at all; returns its size in bytes."""
    return write_pieces(target, (content,))


def write_pieces(target: Path, pieces: Iterable[bytes]) -> int:
    """Write a file from its pieces, whole or not at all; returns its size in bytes."""
    from perfkit.capture import atomic_write

    if target.exists() and not target.is_file():  # /dev/stdout or a pipe cannot be renamed over
        with target.open("wb") as file:
            return sum(map(file.write, pieces))
    with atomic_write(target) as file:
        return sum(map(file.write, pieces))
