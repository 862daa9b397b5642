"""The replacement of parts by others, all of them or none.

New parts are written to a folder of their own; then a record that names what comes and what goes is
written, and from that moment it has happened: whoever opens the capture next carries it out if the
one who wrote the record was killed, or left the parts where they are because somebody read them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import weakref
from pathlib import Path

import msgspec

from perfkit.errors import CaptureError
from perfkit.manifest import atomic_write, sync_directory

RECORD = "compaction.json"
FOLDER = ".compaction-"
"""How the names of folders begin that have the new parts."""


class Record(msgspec.Struct, frozen=True):
    """A compaction that is decided: files by their path in the capture."""

    folder: str
    """Where the new parts are until they are moved to their place."""
    comes: list[str]
    goes: list[str]


class Reading:
    """Keeps the parts of a capture where they are while somebody reads them.

    It is a shared lock on the capture's folder, which is not written for it, and which the kernel
    frees when the process ends. Where folders cannot be locked, as on some network file systems,
    nothing is held; who reads there may find a part gone, see `part_is_gone`.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._fd)
        self.holds = self.share()

    def share(self) -> bool:
        """Let others read, too; waits while parts change places. Returns whether it is held."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_SH)
        except OSError:
            return False
        return True

    def alone(self) -> bool:
        """Whether nobody else reads; then nobody begins to, until `share`."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return True  # it cannot be told here
            self.share()
            return False
        return True


def carry_out(path: Path) -> None:
    """Do what the record of a compaction says, as far as it is not done.

    The caller has the writer's lock, and is the only one that reads.

    Also removes the folder of a compaction that was killed before it was decided.
    """
    record = read_record(path)
    if record is not None:
        for part in record.comes:
            # Moved already if there is nothing at its old place.
            if (path / record.folder / part).exists():
                (path / part).parent.mkdir(exist_ok=True)
                (path / record.folder / part).replace(path / part)
        for part in record.goes:
            (path / part).unlink(missing_ok=True)
        for table in {part.split("/")[0] for part in (*record.comes, *record.goes)}:
            sync_directory(path / table)
        (path / RECORD).unlink()
        sync_directory(path)
    for folder in path.glob(f"{FOLDER}*"):
        shutil.rmtree(folder, ignore_errors=True)


def read_record(path: Path) -> Record | None:
    """Return the record of a compaction that is decided but perhaps not carried out."""
    try:
        return msgspec.json.decode((path / RECORD).read_bytes(), type=Record)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise CaptureError(f"{path / RECORD}: damaged ({error})") from error


def decide(path: Path, record: Record) -> None:
    """Write the record: from here on the new parts count, whatever happens."""
    for part in record.comes:
        sync_directory((path / record.folder / part).parent)
    with atomic_write(path / RECORD) as file:
        file.write(msgspec.json.encode(record))


def part_is_gone(error: FileNotFoundError) -> CaptureError | None:
    """Return what to say of a part that somebody removed while it was read; None for other files.

    Polars says the path only in its text.
    """
    found = re.search(r"\S*/part-[^/]*\.parquet", str(error))
    if found is None:
        return None
    return CaptureError(
        f"{found[0]}: is gone: while it was read, the capture was compacted, or its recorder "
        "removed its oldest part",
        hint="run the command again",
    )
