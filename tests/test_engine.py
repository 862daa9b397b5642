"""Executors do their work in the order of its items, and say it when they cannot."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from perfkit import engine
from perfkit.engine import Dask, Here, Processes, executor
from perfkit.errors import PerfkitError, UsageError


def doubled(number: int) -> tuple[int, int]:
    return 2 * number, os.getpid()


def dies(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_here_does_one_after_the_other_in_this_process() -> None:
    assert Here().map(doubled, [3, 1, 2]) == [(6, os.getpid()), (2, os.getpid()), (4, os.getpid())]


def test_progress_counts_the_items_that_are_done() -> None:
    counted: list[int] = []
    Here().map(doubled, [3, 1, 2], counted.append)
    assert counted == [1, 2, 3]


def test_processes_give_results_in_order_from_elsewhere() -> None:
    workers = Processes(2)
    try:
        found = workers.map(doubled, range(8))
    finally:
        workers.close()
    assert [value for value, _ in found] == [0, 2, 4, 6, 8, 10, 12, 14]
    assert os.getpid() not in {pid for _, pid in found}


def test_a_killed_process_is_one_clear_line() -> None:
    workers = Processes(1)
    with pytest.raises(PerfkitError, match="a worker process was killed") as caught:
        workers.map(dies, [1])
    assert "--engine shards" in str(caught.value.hint)
    workers.close()


def test_dask_that_is_not_installed_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(PerfkitError, match="not installed") as caught:
        Dask().map(doubled, [1])
    assert caught.value.hint == "pip install 'perfkit[dask]'"


def test_a_scheduler_that_does_not_answer_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("distributed", reason="needs perfkit[dask]")
    monkeypatch.setattr(engine, "_CONNECT_S", 0.5)
    with pytest.raises(PerfkitError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        Dask("tcp://127.0.0.1:9").map(doubled, [1])


def test_an_executor_is_found_by_its_name() -> None:
    assert isinstance(executor("shards"), Here)
    assert isinstance(executor("processes"), Processes)
    assert executor("dask").name == "on a local Dask cluster"
    assert executor("dask://host:8786").name == "on the Dask cluster tcp://host:8786"
    for name in ("spark", "dask://", "http://host"):
        with pytest.raises(UsageError, match="no such engine"):
            executor(name)
