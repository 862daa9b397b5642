"""Where a piece of work is done for many shards: in this process, in several, or on Dask.

Work is a function that can be imported, and items and results can be pickled. What the functions
read and write is in files, so the workers of a cluster need the same files at the same paths.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from perfkit.errors import PerfkitError, UsageError

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")
R = TypeVar("R")

_RETRIES = 3
"""A shard whose worker dies is done again so often, by another."""
_CONNECT_S = 10


Progress = Callable[[int], None]


def _silent(done: int) -> None:
    pass


class Executor(Protocol):
    """Does work for every item."""

    @property
    def name(self) -> str:
        """Where the work is done, in words."""

    @property
    def elsewhere(self) -> bool:
        """Whether the work is done on other machines, which do not see this one's /tmp."""

    def map(
        self, work: Callable[[T], R], items: Sequence[T], progress: Progress = _silent
    ) -> list[R]:
        """Return the results in the order of the items. Raises what the work raises.

        `progress` is told how many items are done.
        """

    def close(self) -> None:
        """End what was started for this."""


class Here:
    """One shard after the other in this process."""

    name = "in this process"
    elsewhere = False

    def map(
        self, work: Callable[[T], R], items: Sequence[T], progress: Progress = _silent
    ) -> list[R]:
        """Return the results in the order of the items."""
        return _counted(map(work, items), progress)

    def close(self) -> None:
        """Nothing was started."""


class Processes:
    """Several shards at once, each in a process of its own that divides the cores."""

    elsewhere = False

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    @property
    def name(self) -> str:
        """Where the work is done, in words."""
        return f"in {self.workers} processes"

    def map(
        self, work: Callable[[T], R], items: Sequence[T], progress: Progress = _silent
    ) -> list[R]:
        """Return the results in the order of the items."""
        if self._pool is None:
            threads = max(1, cores() // self.workers)
            self._pool = ProcessPoolExecutor(
                self.workers,
                # Polars' threads do not survive a fork.
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_begin_worker,
                initargs=(threads,),
            )
        try:
            return _counted(self._pool.map(work, items), progress)
        except BrokenProcessPool as error:
            raise PerfkitError(
                "a worker process was killed, perhaps for want of memory",
                hint="with --engine shards one shard after the other is done, in less memory",
            ) from error

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


class Dask:
    """Shards on the workers of a Dask cluster: one that runs already, or a local one.

    A shard whose worker dies is done again by another one.
    """

    def __init__(self, address: str | None = None) -> None:
        self._address = address
        self._client: Client | None = None

    @property
    def name(self) -> str:
        """Where the work is done, in words."""
        return (
            f"on the Dask cluster {self._address}" if self._address else "on a local Dask cluster"
        )

    @property
    def elsewhere(self) -> bool:
        """Whether the work is done on other machines."""
        return self._address is not None

    def map(
        self, work: Callable[[T], R], items: Sequence[T], progress: Progress = _silent
    ) -> list[R]:
        """Return the results in the order of the items."""
        client = self._connect()
        from distributed import KilledWorker

        # Not pure: work writes files, so a result from before must not stand in for it.
        futures = client.map(work, items, pure=False, retries=_RETRIES)
        try:
            found = list(client.gather(futures))
        except KilledWorker as error:
            raise PerfkitError(
                "Dask workers were killed again and again, perhaps for want of memory",
                hint="give each worker at least 2 GiB for a million spans of a shard",
            ) from error
        progress(len(found))
        return found

    def close(self) -> None:
        """Leave the cluster; end it if it was started for this."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connect(self) -> Client:
        if self._client is None:
            try:
                from distributed import Client
            except ImportError as error:
                raise PerfkitError(
                    "Dask is not installed", hint="pip install 'perfkit[dask]'"
                ) from error
            if self._address is None:
                self._client = Client(
                    processes=True,
                    n_workers=cores(),
                    threads_per_worker=1,
                    dashboard_address=None,
                    set_as_default=False,
                )
                return self._client
            try:
                self._client = Client(self._address, timeout=_CONNECT_S, set_as_default=False)
            except (OSError, TimeoutError, ValueError) as error:
                raise PerfkitError(
                    f"no Dask scheduler answers at {self._address}",
                    hint="start one with `dask scheduler`, or leave the address away",
                ) from error
        return self._client


def executor(name: str) -> Executor:
    """Return the executor of a name: `shards`, `processes`, `dask` or `dask://HOST:PORT`.

    Raises UsageError for any other.
    """
    if name == "shards":
        return Here()
    if name == "processes":
        return Processes(cores())
    if name == "dask":
        return Dask()
    scheme, found, address = name.partition("://")
    if found and address and scheme in ("dask", "tcp", "tls"):
        return Dask(f"{'tcp' if scheme == 'dask' else scheme}://{address}")
    raise UsageError(
        f"no such engine: {name}",
        hint="known are auto, whole, shards, processes, dask and dask://HOST:PORT",
    )


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def free_bytes() -> int | None:
    """Return how much memory this process may still take: of the machine, and of its control
    group; None where neither is known.
    """
    found = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(line for line in lines if line.startswith("MemAvailable:"))
        found.append(int(available.split()[1]) * 1024)
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit, used = (
            int((group / name).read_text(encoding="ascii"))
            for name in ("memory.max", "memory.current")
        )
        found.append(max(0, limit - used))
    return min(found, default=None)


def _counted(results: Iterable[R], progress: Progress) -> list[R]:
    found = []
    for result in results:
        found.append(result)
        progress(len(found))
    return found


def _begin_worker(threads: int) -> None:
    """Say it before Polars is imported, which reads it once; and end when the parent is killed."""
    os.environ["POLARS_MAX_THREADS"] = str(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
