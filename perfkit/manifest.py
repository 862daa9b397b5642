"""What a capture says of itself, and who is writing it: `capture.json` and the writer's lock.

Apart from `capture.py` so that a recorder, which only journals, starts without loading Polars.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Any

import msgspec

from perfkit.errors import NO_ROOM, CaptureError

FORMAT_VERSION = 1
"""Version of the layout of a capture and of the tables in `model.py`; kept in every part too."""

INFO_NAME = "capture.json"

CUT = "only its beginning is kept"
"""Why something of a value is lost that `long_values` cut."""
_CUT_VALUE = "value longer than 1 MiB"


@dataclass
class Loss:
    """Something that the capture lacks: what, how much, and why."""

    what: str
    count: int
    why: str


_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass
class CaptureInfo:
    """Content of `capture.json`; `finished_ns` is null while a writer lives or if it was killed."""

    id: str
    created_ns: int
    format_version: int = FORMAT_VERSION
    finished_ns: int | None = None
    host: str = ""
    system: str = ""
    cores: int = 0
    command: list[str] = field(default_factory=list)
    perfkit_version: str = ""
    git_commit: str | None = None
    sources: list[dict[str, Any]] = field(default_factory=list)
    """One entry a source: `name` (py-spy, resources, otlp, import), its settings, what it saw."""
    anchors: dict[str, int] = field(default_factory=dict)
    """`wall_ns` and `monotonic_ns`, read together when recording began."""
    rows: dict[str, int] = field(default_factory=dict)
    lost: list[Loss] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sampling: dict[str, Any] = field(default_factory=dict)
    """How received spans are sampled: `head_ratio`, or `tail_ratio` with `tail_slow_ns`."""

    @classmethod
    def new(cls, command: list[str]) -> CaptureInfo:
        """Describe a capture that begins now on this machine."""
        from perfkit import __version__

        wall_ns, monotonic_ns = time.time_ns(), time.monotonic_ns()
        return cls(
            id=secrets.token_hex(8),
            created_ns=wall_ns,
            host=platform.node(),
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            cores=os.cpu_count() or 0,
            command=command,
            perfkit_version=__version__,
            git_commit=_git_commit(),
            anchors={"wall_ns": wall_ns, "monotonic_ns": monotonic_ns},
        )

    @classmethod
    def load(cls, path: Path) -> CaptureInfo:
        """Read `capture.json`. Raises CaptureError when it is damaged or of another version."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise CaptureError(f"{path}: damaged ({error})") from error
        return cls.from_text(text, str(path))

    @classmethod
    def from_text(cls, text: str, place: str) -> CaptureInfo:
        """Read the content of `capture.json`; errors name its place."""
        try:
            raw = json.loads(text)
            version = raw["format_version"]
            if version == FORMAT_VERSION:
                info = msgspec.convert(raw, cls)
                # The id becomes a part of file names (history), and the time a date.
                if not _ID.fullmatch(info.id) or not 0 <= info.created_ns < 1 << 63:
                    raise ValueError("its id or its time is none")
                return info
        except (ValueError, TypeError, KeyError, msgspec.MsgspecError) as error:
            raise CaptureError(f"{place}: damaged ({error})") from error
        raise CaptureError(
            f"{place}: format version {version}, this perfkit reads {FORMAT_VERSION}",
            hint="read it with the perfkit that wrote it, or capture again",
        )

    def lose(self, what: str, count: int, why: str) -> None:
        """Remember that something is missing: it is shown under capture health."""
        for loss in self.lost:
            if (loss.what, loss.why) == (what, why):
                loss.count += count
                return
        self.lost.append(Loss(what, count, why))

    def lose_rejected(self, rejected: Mapping[str, int]) -> None:
        """Remember how many rows were refused, or values cut, as reason -> count."""
        for reason, count in rejected.items():
            self.lose(_CUT_VALUE if reason == CUT else "rejected", count, reason)

    def note(self, text: str) -> None:
        """Remember a remark for the reader of the report."""
        if text not in self.notes:
            self.notes.append(text)

    def save(self, path: Path) -> None:
        """Write `capture.json`, whole or not at all."""
        # A line for each member: with `indent` the encoder is slow, and sources may be thousands.
        lines = (
            f' "{member.name}": '
            + json.dumps(getattr(self, member.name), ensure_ascii=False, default=asdict)
            for member in fields(self)
        )
        text = "{\n" + ",\n".join(lines) + "\n}"
        with atomic_write(path) as file:
            file.write(text.encode("utf-8", "replace"))


def _git_commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607 - the user's own git
            capture_output=True,
            text=True,
            timeout=2,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` and rename it over `path` when the block succeeds."""
    # Not the pid: threads, and containers that share a folder, may have the same.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        # Durable only together with its name: what it replaces may be removed next.
        sync_directory(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in NO_ROOM and error.filename is None:
            error.filename = str(path)  # what is written to a file says no name
        raise


class WriterLock:
    """Tells a capture that is being written from one whose writer is gone.

    Helpers of the writer (py-spy, the compaction worker) inherit the lock, so that it is free only
    when the last of them has written what it has. The file holds the writer's process id.
    """

    def __init__(self, directory: Path) -> None:
        fd = os.open(directory / "writer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._file = os.fdopen(fd, "r+b")

    @property
    def fd(self) -> int:
        """File descriptor for helpers to inherit."""
        return self._file.fileno()

    def acquire(self) -> bool:
        """Take the lock; false when a living writer or one of its helpers holds it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            raise
        return True

    def sign(self) -> None:
        """Write our process id into the lock that we hold."""
        self._file.truncate(0)
        self._file.write(str(os.getpid()).encode())
        self._file.flush()

    def acquire_from_dead(self, timeout_s: float = 10.0) -> bool:
        """Take the lock, waiting while a writer is gone but its helpers still write."""
        deadline = time.monotonic() + timeout_s
        while not self.acquire():
            if self._writer_lives() or time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def _writer_lives(self) -> bool:
        self._file.seek(0)
        text = self._file.read()
        if not text.isdigit():
            return True
        try:
            os.kill(int(text), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def release(self) -> None:
        """Give the lock back."""
        self._file.close()


def create(path: Path, command: list[str] | None = None) -> tuple[CaptureInfo, WriterLock]:
    """Begin a capture in a new or empty directory, locked by this process.

    Raises CaptureError when there is something already.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise CaptureError(
            f"{path}: already exists", hint="choose another name with -o, or remove it"
        )
    path.mkdir(parents=True, exist_ok=True)
    info = CaptureInfo.new(command if command is not None else _without_secrets(sys.argv))
    lock = WriterLock(path)
    lock.acquire()
    lock.sign()
    info.save(path / INFO_NAME)
    return info, lock


def _without_secrets(arguments: Sequence[str]) -> list[str]:
    """Return a command line whose secrets are blotted out: captures are passed on."""
    shown = list(arguments)
    for position, argument in enumerate(shown):
        if argument == "--":
            break
        name, equals, _ = argument.partition("=")
        if scheme := re.match("[a-z]+://", argument):
            shown[position] = f"{scheme[0]}***" if "@" in argument or "?" in argument else argument
        elif name.endswith("-token"):
            if equals:
                shown[position] = f"{name}=***"
            elif position + 1 < len(shown):
                shown[position + 1] = "***"
    return shown


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
