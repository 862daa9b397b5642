"""A PostgreSQL of its own for what is measured or tested, from the packages of the system."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_START_TIMEOUT_S = 60


def installed() -> Path | None:
    """Return the folder of the server's programs; None where there is none that could be run."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found and shutil.which("setpriv") else None


@contextmanager
def running(folder: Path, *options: str) -> Iterator[int]:
    """Run a server with its data in a folder that exists, and give its port on 127.0.0.1.

    The superuser is `postgres`, without a password. Raises RuntimeError when it does not start.
    """
    programs = installed()
    if programs is None:
        raise RuntimeError("no PostgreSQL: apt-get install postgresql")
    as_user = _unprivileged(folder) if os.geteuid() == 0 else []
    data, port = str(folder / "data"), free_port()
    subprocess.run(
        [*as_user, programs / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    server = subprocess.Popen(
        [
            *(*as_user, programs / "postgres", "-D", data, "-p", str(port)),
            *("-k", str(folder), "-h", "127.0.0.1", "-c", "fsync=off", *options),
        ],
        cwd=folder,
        stderr=subprocess.DEVNULL,
    )
    try:
        ready = [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
        deadline = time.monotonic() + _START_TIMEOUT_S
        while subprocess.run(ready, capture_output=True).returncode:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("PostgreSQL did not start")
            time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait()


def _unprivileged(folder: Path) -> list[str]:
    """Let the user `postgres` at the folder, and return what runs a command as it.

    The server refuses to run as root.
    """
    subprocess.run(["chown", "-R", "postgres", folder], check=True)
    for parent in folder.parents:
        if not parent.stat().st_mode & 0o001 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
