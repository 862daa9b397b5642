"""Metrics of process and host: names, units, and values that can be checked."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from perfkit import model
from perfkit.collect import processes
from perfkit.collect.resources import catalogue, disk, procfs
from perfkit.collect.resources.connections import count_peers
from perfkit.collect.resources.host import Host
from perfkit.collect.resources.process import Gone, Process
from perfkit.collect.resources.rows import Allowance, Deltas, Metric, Rows
from perfkit.collect.resources.sampler import ResourceSampler
from perfkit.parts import conform


def named(rows: Rows, name: str) -> dict[str | None, float]:
    """Return attributes -> value of the rows with a name."""
    return {row[7]: row[3] for row in rows.rows if row[1] == name}


def process_of(pid: int) -> Process:
    """Return a process whose every reading takes place."""
    process = Process(pid)
    process._costly = [(Allowance(1e9), reading) for _, reading in process._costly]
    return process


def measured(process: Process) -> Rows:
    rows = Rows.now()
    process.measure(rows)
    return rows


def test_rows_fit_the_table() -> None:
    rows = Rows(5, 0.0)
    rows.instance = "pid 1"
    rows.add(Metric("load", "1", "gauge", ""), 0.5)
    rows.add(Metric("time", "s", "counter", ""), 2, ("cpu.mode", "user"), ("b", 1), ("a", 2))
    frame = conform(model.METRICS, json.loads(rows.encode()))
    assert frame["attributes"].to_list() == [None, '{"a": 2, "b": 1, "cpu.mode": "user"}']
    assert frame["kind"].to_list() == ["gauge", "counter"]
    assert frame["instance"].to_list() == ["pid 1", "pid 1"]
    assert conform(model.METRICS, json.loads(Rows(5, 0.0).encode())).is_empty()


def test_growth_is_known_from_the_second_reading_on() -> None:
    deltas = Deltas()
    assert deltas.since("a", 1.0, 5) is None
    assert deltas.since("a", 3.0, 9) == (2.0, 4)
    assert deltas.since("b", 3.0, 9) is None
    assert deltas.since("a", 4.0, 2) is None  # began anew
    assert deltas.since("a", 4.0, 3) is None  # no time passed
    assert deltas.since("a", 5.0, 3) == (1.0, 0)


def test_a_costly_reading_waits_until_it_may() -> None:
    done: list[Rows] = []

    def costly(rows: Rows) -> None:
        end = time.thread_time() + 0.002
        while time.thread_time() < end:
            pass
        done.append(rows)

    seldom, often = Allowance(1e-6), Allowance(1e9)
    for _ in range(3):
        seldom.read(costly, Rows.now())
    assert len(done) == 1
    for _ in range(3):
        often.read(costly, Rows.now())
    assert len(done) == 4


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
    with pytest.raises(Gone):
        measured(process)


def test_a_process_that_gave_its_memory_back_is_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(os.getpid())
    read = procfs.read

    def ending(path: str) -> str:
        if not path.endswith("/stat"):
            return read(path)
        name, _, rest = read(path).rpartition(")")
        fields = rest.split()
        fields[20] = fields[21] = "0"  # address space and resident pages
        return f"{name}) {' '.join(fields)}"

    monkeypatch.setattr(procfs, "read", ending)
    with pytest.raises(Gone):
        measured(process)


def test_a_process_says_what_it_has(tmp_path: Path) -> None:
    process = process_of(os.getpid())
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
    assert growth("process.unix.file_descriptor.count") == 5
    assert growth("process.context_switches") > 0
    assert named(after, "process.memory.usage")[None] > 10 << 20
    assert growth("process.cpu.time") >= 0
    assert {row[2] for row in after.rows if row[1] == "process.memory.usage"} == {"By"}
    assert {row[6] for row in after.rows} == {processes.instance(os.getpid())}


def test_context_switches_never_go_back() -> None:
    process = process_of(os.getpid())
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
    accepted = [server.accept()[0] for _ in range(2)]
    process = process_of(os.getpid())
    state = '"network.connection.state": "established"'
    outward = f'{{{state}, "network.peer.address": "127.0.0.1", "network.peer.port": {port}}}'
    inward = f'{{{state}, "network.local.port": {port}}}'
    try:
        rows = measured(process)
        found = named(rows, "process.network.connection.count")
        assert found[outward] == 3
        assert found[inward] == 2
        backlog = named(rows, "process.linux.listen.backlog")
        assert backlog[f'{{"network.local.port": {port}}}'] == 1
        unread = "process.linux.listen.unread"
        assert named(rows, unread)[f'{{"network.local.port": {port}}}'] == 0
        clients[0].sendall(b"GET / HTTP/1.1")
        accepted[1].sendall(b"an answer that the client has not read")
        assert named(measured(process), unread)[f'{{"network.local.port": {port}}}'] == 1
        accepted[0].recv(100)
        assert named(measured(process), unread)[f'{{"network.local.port": {port}}}'] == 0
    finally:
        for each in (*clients, *accepted, server):
            each.close()
    # A series that ended says so once, and does not stay at its last value.
    assert named(measured(process), "process.network.connection.count")[outward] == 0
    assert outward not in named(measured(process), "process.network.connection.count")


def test_rare_peers_are_summed_up() -> None:
    def to(peer: str, port: int) -> procfs.Connection:
        return procfs.Connection(5, peer, port, "established", 0)

    connections = [to("10.0.0.2", 5432) for _ in range(4)]
    connections += [to("10.0.0.3", number) for number in range(100)]
    counts = count_peers(connections)
    state = ("network.connection.state", "established")
    database = ("network.peer.address", "10.0.0.2"), ("network.peer.port", 5432), state
    assert counts[database] == 4
    assert counts[("network.peer.address", "other"), state] == 71
    assert sum(counts.values()) == 104
    assert len(counts) == 31


def test_a_disk_that_worked_says_how_long_it_took() -> None:
    disks = disk.Disks()
    before = procfs.Disk(100, 0, 1000, 500, 10, 0, 80, 50, 0, 1000, 2000)
    after = procfs.Disk(120, 0, 1400, 600, 10, 0, 80, 50, 1, 1500, 3000)
    for clock_s, reading in ((0.0, before), (2.0, after)):
        rows = Rows(0, clock_s)
        disks.measure_one(rows, "sda", reading)
    found = {(row[1], row[7]): row[3] for row in rows.rows}
    device = '{"system.device": "sda"}'
    read = '{"disk.io.direction": "read", "system.device": "sda"}'
    write = '{"disk.io.direction": "write", "system.device": "sda"}'
    assert found["system.disk.io", read] == 1400 * 512
    assert found["system.disk.operation_time", read] == 0.6
    assert found["system.linux.disk.latency", read] == 0.005
    assert ("system.linux.disk.latency", write) not in found
    assert found["system.linux.disk.utilization", device] == 0.25
    assert found["system.linux.disk.queue_length", device] == 0.5


def test_what_is_a_disk() -> None:
    assert not disk.is_disk("loop0")
    assert not disk.is_disk("zram0")
    assert not disk.is_disk("../../etc")
    assert not disk.is_disk("no such disk")


def test_the_host_has_every_core_and_ratios_are_ratios() -> None:
    host = Host()
    time.sleep(0.1)
    rows = Rows.now()
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
        assert '{"kind": "some", "resource": "cpu"}' in named(rows, "system.linux.psi")


def test_every_row_is_of_a_metric_in_the_catalogue() -> None:
    known = {metric.name: metric for metric in catalogue.METRICS}
    assert len(known) == len(catalogue.METRICS)
    sampler = ResourceSampler(lambda: [os.getpid()], os.getpid(), lambda _: True)
    sampler.measure()
    rows = sampler.measure()
    for _, name, unit, _, kind, _, instance, attributes in rows.rows:
        assert (unit, kind) == (known[name].unit, known[name].kind), name
        assert set(json.loads(attributes or "{}")) <= set(known[name].attributes), name
        assert instance
    series = [(row[1], row[6], row[7]) for row in rows.rows]
    assert len(series) == len(set(series))


def test_names_are_those_of_opentelemetry() -> None:
    """Each name is one of the conventions with their unit, or declared to be our own."""
    from opentelemetry.semconv._incubating.metrics import (
        container_metrics,
        process_metrics,
        system_metrics,
    )

    standard = {
        value: module
        for module in (container_metrics, process_metrics, system_metrics)
        for key, value in vars(module).items()
        if key.isupper() and isinstance(value, str)
    }
    for metric in catalogue.METRICS:
        assert (metric.name in standard) != catalogue.is_own(metric), metric.name
    assert {metric.name for metric in catalogue.METRICS} >= catalogue.OWN


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
