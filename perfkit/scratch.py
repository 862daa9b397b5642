"""Folders for what a command needs only while it runs; none outlives it for long.

A folder is removed when its user is done, also when SIGTERM or SIGHUP ends the process. What a
process left that was killed outright is removed by the next one that wants such a folder at the
same place: each holds a lock in it that the kernel frees at its death, so neither age nor a process
id, which may be another's by now, is asked.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import secrets
import shutil
import stat
import tempfile
import weakref
from pathlib import Path
from typing import IO

from perfkit import ending

PREFIX = "perfkit-scratch-"
_HIDDEN = "."
_UNLOCKED = "perfkit-unlocked-"
_LOCK = "lock"

_living: dict[Path, IO[str]] = {}


class Scratch:
    """A folder of our own, `path`: a context manager, and removed when nobody has it any more."""

    def __init__(self, parent: Path | None = None) -> None:
        """`parent` is where it is made, hidden; by default where temporary files are."""
        where = parent or Path(tempfile.gettempdir())
        remove_stale(where)
        hidden = _HIDDEN if parent else ""
        name = secrets.token_hex(6)
        # Under a name that nobody removes until it is locked.
        path = where / f"{hidden}{_UNLOCKED}{name}"
        path.mkdir(mode=0o700)
        lock = (path / _LOCK).open("w", encoding="utf-8")
        with contextlib.suppress(OSError):  # a file system without locks keeps the other name
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.write(platform.node())
            lock.flush()
            path = path.rename(where / f"{hidden}{PREFIX}{name}")
        ending.at_worst(_remove_all)
        _living[path] = lock
        self.path = path
        self._remove = weakref.finalize(self, _remove, path)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder."""
        self._remove()


def remove_stale(where: Path) -> None:
    """Remove the folders at a place whose process is gone: ours, and made on this machine."""
    for pattern in (f"{PREFIX}*", f"{_HIDDEN}{PREFIX}*"):
        for path in where.glob(pattern):
            if path not in _living:
                with contextlib.suppress(OSError, ValueError):
                    _remove_if_stale(path)


def _remove_if_stale(path: Path) -> None:
    found = path.lstat()
    if found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode):
        return
    if not (path / _LOCK).exists():  # whoever was removing it was killed, too
        shutil.rmtree(path, ignore_errors=True)
        return
    with (path / _LOCK).open("r+", encoding="utf-8") as lock:
        # Some network file systems keep the locks of one machine from the others.
        if lock.read() == platform.node():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    lock = _living.pop(path, None)
    if lock is not None:
        lock.close()


def _remove_all() -> None:
    for path in list(_living):
        shutil.rmtree(path, ignore_errors=True)
