"""Metrics of process and host: names, units, and values that can be checked."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import psutil
import pytest

from perfkit import model
from perfkit.capture import conform
from perfkit.collect.resources import (
    Cgroup,
    Host,
    Process,
    ResourceSampler,
    Rows,
    count_peers,
)


def named(rows: Rows, name: str) -> dict[str | None, float]:
    """Return attributes -> value of the rows with a name."""
    return {row[7]: row[3] for row in rows.rows if row[1] == name}


def measured(process: Process) -> Rows:
    rows = Rows(time.time_ns())
    process.measure(rows)
    return rows


def test_rows_fit_the_table() -> None:
    rows = Rows(5)
    rows.instance = "pid 1"
    rows.gauge("load", "1", 0.5)
    rows.counter("time", "s", 2, cpu__mode="user", b=1, a=2)
    frame = conform(model.METRICS, json.loads(rows.encode()))
    assert frame["attributes"].to_list() == [None, '{"a": 2, "b": 1, "cpu.mode": "user"}']
    assert frame["kind"].to_list() == ["gauge", "counter"]
    assert frame["instance"].to_list() == ["pid 1", "pid 1"]


def test_cpu_is_a_share_of_one_core() -> None:
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        process = Process(busy.pid)
        before_s, began = psutil.Process(busy.pid).cpu_times().user, time.monotonic()
        measured(process)
        time.sleep(0.5)
        (ratio,) = named(measured(process), "process.cpu.utilization").values()
        spent_s = psutil.Process(busy.pid).cpu_times().user - before_s
        # However busy the machine is, it says what psutil saw in that time.
        assert ratio == pytest.approx(spent_s / (time.monotonic() - began), abs=0.2)
    finally:
        busy.kill()
        busy.wait()
    with pytest.raises((psutil.Error, OSError)):
        measured(process)


def test_a_process_says_what_it_has(tmp_path: Path) -> None:
    process = Process(os.getpid())
    before = measured(process)
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    files = [(tmp_path / str(number)).open("w") for number in range(5)]
    time.sleep(0.05)
    after = measured(process)
    stop.set()
    for file in files:
        file.close()

    def growth(name: str) -> float:
        return sum(named(after, name).values()) - sum(named(before, name).values())

    assert growth("process.thread.count") == 3
    assert growth("process.open_file_descriptor.count") == 5
    assert growth("process.context_switches") > 0
    assert named(after, "process.memory.usage")[None] > 10 << 20
    assert growth("process.cpu.time") >= 0
    assert {row[2] for row in after.rows if row[1] == "process.memory.usage"} == {"By"}
    assert {row[6] for row in after.rows} == {f"pid {os.getpid()}"}


def test_context_switches_never_go_back() -> None:
    process = Process(os.getpid())
    sums = []
    for _ in range(4):
        thread = threading.Thread(target=lambda: time.sleep(0.01))
        thread.start()
        sums.append(sum(named(measured(process), "process.context_switches").values()))
        thread.join()
    assert sums == sorted(sums)


def test_connections_are_counted_by_peer() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
    accepted = [server.accept()[0] for _ in clients]
    try:
        found = named(measured(Process(os.getpid())), "process.network.connections")
        peers = {json.loads(text or "{}")["peer"]: count for text, count in found.items()}
        assert peers[f"127.0.0.1:{port}"] == 3
        assert peers[f"inbound:{port}"] == 3
    finally:
        for each in (*clients, *accepted, server):
            each.close()


Address = namedtuple("Address", "ip port")
Connection = namedtuple("Connection", "laddr raddr status")


def test_rare_peers_are_summed_up() -> None:
    local = Address("10.0.0.1", 5)
    connections: list[Any] = [
        Connection(local, Address("10.0.0.2", 5432), "ESTABLISHED") for _ in range(4)
    ]
    connections += [
        Connection(local, Address("10.0.0.3", number), "ESTABLISHED") for number in range(100)
    ]
    connections += [Connection(local, (), "CLOSE")]
    counts = count_peers(connections)
    assert counts["10.0.0.2:5432", "established"] == 4
    assert counts["other", "established"] == 71
    assert sum(counts.values()) == 104
    assert len(counts) == 31


def test_the_host_has_every_core_and_ratios_are_ratios() -> None:
    host = Host()
    time.sleep(0.1)
    rows = Rows(time.time_ns())
    host.measure(rows)
    cores = named(rows, "system.cpu.utilization")
    assert len(cores) == (os.cpu_count() or 0) + 1
    each = [value for key, value in cores.items() if key]
    assert cores[None] == pytest.approx(sum(each) / len(each))
    ratios = [row[3] for row in rows.rows if row[2] == "1" and row[1] != "system.linux.load_1m"]
    assert all(0 <= ratio <= 1 for ratio in ratios)
    memory = named(rows, "system.memory.limit")[None]
    assert memory == psutil.virtual_memory().total
    assert 0 < named(rows, "system.memory.usage")[None] < memory
    if Path("/proc/pressure/cpu").exists():
        assert '{"kind": "some", "resource": "cpu", "window": "10s"}' in named(
            rows, "system.linux.psi"
        )


def test_limits_of_a_control_group(tmp_path: Path) -> None:
    for name, text in {
        "memory.max": "1048576\n",
        "memory.current": "1000\n",
        "cpu.max": "50000 100000\n",
        "cpu.stat": "usage_usec 5\nnr_periods 7\nnr_throttled 3\nthrottled_usec 2500000\n",
    }.items():
        (tmp_path / name).write_text(text)
    group = Cgroup(os.getpid())
    group._path = tmp_path
    rows = Rows(0)
    group.measure(rows)
    assert {row[1]: row[3] for row in rows.rows} == {
        "container.memory.limit": 1048576,
        "container.memory.usage": 1000,
        "container.cpu.limit": 0.5,
        "container.cpu.throttled.time": 2.5,
        "container.cpu.throttled.periods": 3,
        "container.cpu.periods": 7,
    }
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    rows = Rows(0)
    group.measure(rows)
    assert rows.rows == []


def test_the_sampler_measures_at_once_and_at_its_end() -> None:
    bodies: list[bytes] = []
    first = threading.Event()

    def put(body: bytes) -> bool:
        bodies.append(body)
        first.set()
        return True

    sampler = ResourceSampler(lambda: [os.getpid(), 2**22 + 1], os.getpid(), put)
    sampler.start()
    assert first.wait(10)
    sampler.stop()
    assert len(bodies) >= 2
    times = [set(json.loads(body)["ts_ns"]) for body in bodies]
    assert all(len(each) == 1 for each in times)
    assert "process.cpu.utilization" in json.loads(bodies[-1])["name"]


def test_the_sampler_ends_when_the_journal_failed() -> None:
    calls: list[bytes] = []

    def put(body: bytes) -> bool:
        calls.append(body)
        return False

    sampler = ResourceSampler(list, None, put)
    sampler.start()
    sampler._thread.join(10)
    assert not sampler._thread.is_alive()
    assert len(calls) == 1
    sampler.stop()
