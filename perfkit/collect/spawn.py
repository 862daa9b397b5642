"""Starts programs through the shim `launch.py`, and knows the moment in which they began."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from perfkit.errors import RecordError

_SHIM = Path(__file__).with_name("launch.py")


@dataclass(frozen=True)
class Moment:
    """One instant on both clocks."""

    wall_ns: int
    monotonic_ns: int

    @classmethod
    def now(cls) -> Moment:
        """Read both clocks."""
        return cls(time.time_ns(), time.monotonic_ns())


@dataclass(frozen=True)
class Started:
    """A started program and the moment of its `exec`."""

    process: subprocess.Popen[bytes]
    began: Moment


def start(
    command: Sequence[str],
    mode: Literal["traced", "follows"],
    *,
    env: Mapping[str, str] | None = None,
    stdout: int | IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
    new_session: bool = False,
) -> Started:
    """Start `command` prepared as `launch.py` describes `mode`.

    Raises RecordError when it cannot be executed.
    """
    read_fd, write_fd = os.pipe()
    argv = [sys.executable, "-I", "-S", str(_SHIM), str(write_fd), str(os.getpid()), mode, "--"]
    try:
        process = subprocess.Popen(
            [*argv, *command],
            env=env,
            stdin=subprocess.DEVNULL if new_session else None,
            stdout=stdout,
            stderr=subprocess.STDOUT if stdout is not None else None,
            pass_fds=[write_fd, *pass_fds],
            start_new_session=new_session,
        )
    except BaseException:
        os.close(read_fd)
        raise
    finally:
        os.close(write_fd)
    with os.fdopen(read_fd, "rb") as pipe:
        failure = pipe.read()
    began = Moment.now()
    if failure:
        process.wait()
        reason = os.strerror(int(failure))
        raise RecordError(
            f"cannot start {command[0]!r}: {reason}",
            hint="check the spelling and the path of the command after --",
        )
    return Started(process, began)
