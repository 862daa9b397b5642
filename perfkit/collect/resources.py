"""Measures process and host once a second, as rows of the table `metrics`.

Names follow OpenTelemetry's semantic conventions. The process and those below it are told apart by
`instance`; rows of the host have the host name there.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

from perfkit.collect import processes

_INTERVAL_S = 1.0
_MAX_PROCESSES = 64
_MAX_PEERS = 30
# Sockets of a process are found by searching those of the whole machine: only as often as this
# share of a core allows.
_CONNECTIONS_COST_RATIO = 0.002
_MAX_THREADS_FOR_SWITCHES = 200
_COLUMNS = ("ts_ns", "name", "unit", "value", "kind", "service", "instance", "attributes")

Row = tuple[Any, ...]


class Rows:
    """Collects rows of one moment and one instance."""

    def __init__(self, ts_ns: int) -> None:
        self.ts_ns = ts_ns
        self.rows: list[Row] = []
        self.instance = ""

    def gauge(self, name: str, unit: str, value: float, **attributes: str | int) -> None:
        """Add a value as it is now."""
        self._add(name, unit, value, "gauge", attributes)

    def counter(self, name: str, unit: str, value: float, **attributes: str | int) -> None:
        """Add a sum since the process or the machine began."""
        self._add(name, unit, value, "counter", attributes)

    def _add(
        self, name: str, unit: str, value: float, kind: str, attributes: dict[str, str | int]
    ) -> None:
        text = None
        if attributes:
            # Keyword arguments cannot have dots: "cpu__mode" stands for "cpu.mode".
            dotted = {key.replace("__", "."): value for key, value in attributes.items()}
            text = json.dumps(dotted, sort_keys=True)
        self.rows.append((self.ts_ns, name, unit, value, kind, None, self.instance, text))

    def encode(self) -> bytes:
        """Return the rows as a JSON object of columns, for the journal."""
        columns = zip(*self.rows, strict=True)
        return json.dumps(dict(zip(_COLUMNS, columns, strict=True))).encode()


class ResourceSampler:
    """Measures until it is stopped; each second's rows go to `put` as one body."""

    def __init__(
        self, members: Callable[[], list[int]], root: int | None, put: Callable[[bytes], bool]
    ) -> None:
        """`members` returns the processes to measure, `root` is the one that was asked for.

        `put` returns false when the capture cannot be written any more: then measuring ends.
        """
        self._members = members
        self._put = put
        self._host = Host()
        self._cgroup = Cgroup(root) if root is not None else None
        self._processes: dict[int, Process] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="resources", daemon=True)

    def start(self) -> None:
        """Begin to measure."""
        self._thread.start()

    def stop(self) -> None:
        """Measure once more and end."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while True:
            stopping = self._stop.wait(max(0.0, due - time.monotonic()))
            due = max(due + _INTERVAL_S, time.monotonic())
            rows = self.measure()
            if not self._put(rows.encode()) or stopping:
                return

    def measure(self) -> Rows:
        """Return one row for each series."""
        rows = Rows(time.time_ns())
        self._host.measure(rows)
        members = self._members()[:_MAX_PROCESSES]
        for pid in members:
            if pid not in self._processes:
                with contextlib.suppress(psutil.Error):
                    self._processes[pid] = Process(pid)
        for pid in list(self._processes):
            try:
                self._processes[pid].measure(rows)
            except (psutil.Error, OSError):
                del self._processes[pid]
        if self._cgroup is not None:
            self._cgroup.measure(rows)
        return rows


class Process:
    """Measures one process."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._cpu: tuple[float, float] | None = None
        self._switches = _Switches(pid)
        self._connections_due = 0.0

    def measure(self, rows: Rows) -> None:
        """Add the rows of this process. Raises psutil.Error when it is gone."""
        process = self._process
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            raise psutil.NoSuchProcess(process.pid)
        rows.instance = f"pid {process.pid}"
        with process.oneshot():
            self._measure_cpu(rows)
            memory = process.memory_info()
            rows.gauge("process.memory.usage", "By", memory.rss)
            rows.gauge("process.memory.virtual", "By", memory.vms)
            rows.gauge("process.thread.count", "{thread}", process.num_threads())
            # The rest needs the process to be ours.
            with contextlib.suppress(psutil.AccessDenied):
                count = process.num_fds()
                rows.gauge("process.open_file_descriptor.count", "{file_descriptor}", count)
            with contextlib.suppress(psutil.AccessDenied, AttributeError):
                disk = process.io_counters()
                name = "process.disk.io"
                rows.counter(name, "By", disk.read_bytes, disk__io__direction="read")
                rows.counter(name, "By", disk.write_bytes, disk__io__direction="write")
        self._switches.measure(rows)
        with contextlib.suppress(psutil.AccessDenied):
            self._measure_connections(rows)

    def _measure_cpu(self, rows: Rows) -> None:
        times = self._process.cpu_times()
        now, used = time.monotonic(), times.user + times.system
        if self._cpu is not None and now > self._cpu[0]:
            ratio = (used - self._cpu[1]) / (now - self._cpu[0])
            rows.gauge("process.cpu.utilization", "1", max(ratio, 0.0))
        self._cpu = (now, used)
        rows.counter("process.cpu.time", "s", times.user, cpu__mode="user")
        rows.counter("process.cpu.time", "s", times.system, cpu__mode="system")

    def _measure_connections(self, rows: Rows) -> None:
        began = time.monotonic()
        if began < self._connections_due:
            return
        connections = self._process.net_connections("inet")
        cost = time.monotonic() - began
        self._connections_due = began + cost / _CONNECTIONS_COST_RATIO
        for (peer, state), count in count_peers(connections).items():
            rows.gauge("process.network.connections", "{connection}", count, peer=peer, state=state)


def count_peers(connections: Iterable[Any]) -> dict[tuple[str, str], int]:
    """Count connections by (peer, state).

    A connection that came in has `inbound:PORT` as its peer, or each client would be one; what is
    beyond the most frequent ones is summed up as `other`.
    """
    connections = list(connections)
    listening = {c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN and c.laddr}
    counts: Counter[tuple[str, str]] = Counter()
    for connection in connections:
        if not connection.raddr:
            continue
        inbound = connection.laddr and connection.laddr.port in listening
        host, port = connection.raddr.ip, connection.raddr.port
        peer = f"inbound:{connection.laddr.port}" if inbound else f"{host}:{port}"
        counts[peer, connection.status.lower()] += 1
    found = dict(counts.most_common(_MAX_PEERS))
    for key, count in counts.items():
        if key not in found:
            other = ("other", key[1])
            found[other] = found.get(other, 0) + count
    return found


class _Switches:
    """Context switches of all threads of a process; the kernel counts them for each thread."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._last: dict[int, tuple[int, int]] = {}
        self._sums = [0, 0]

    def measure(self, rows: Rows) -> None:
        tids = processes.threads(self._pid)
        if len(tids) > _MAX_THREADS_FOR_SWITCHES:
            return
        current: dict[int, tuple[int, int]] = {}
        for tid in tids:
            with contextlib.suppress(OSError, ValueError):
                current[tid] = _thread_switches(self._pid, tid)
        for tid, counts in current.items():
            before = self._last.get(tid, (0, 0))
            for side in (0, 1):
                # A thread that ended takes its count with it: only growth is summed.
                self._sums[side] += max(counts[side] - before[side], 0)
        self._last = current
        for side, kind in enumerate(("voluntary", "involuntary")):
            rows.counter(
                "process.context_switches",
                "{context_switch}",
                self._sums[side],
                process__context_switch_type=kind,
            )


def _thread_switches(pid: int, tid: int) -> tuple[int, int]:
    with open(f"/proc/{pid}/task/{tid}/status", "rb") as file:
        text = file.read()
    voluntary, involuntary = (
        int(text[text.index(key) + len(key) :].split(None, 1)[0])
        for key in (b"\nvoluntary_ctxt_switches:", b"\nnonvoluntary_ctxt_switches:")
    )
    return voluntary, involuntary


class Host:
    """Measures the machine."""

    def __init__(self) -> None:
        self._instance = platform.node()
        self._cpu = psutil.cpu_times(percpu=True)

    def measure(self, rows: Rows) -> None:
        """Add the rows of the machine."""
        rows.instance = self._instance
        self._measure_cpu(rows)
        rows.gauge("system.linux.load_1m", "1", os.getloadavg()[0])
        memory = psutil.virtual_memory()
        rows.gauge("system.memory.usage", "By", memory.total - memory.available)
        rows.gauge("system.memory.limit", "By", memory.total)
        ratio = 1 - memory.available / memory.total
        rows.gauge("system.memory.utilization", "1", ratio)
        rows.gauge("system.paging.utilization", "1", psutil.swap_memory().percent / 100)
        for resource, kind, value in _pressure():
            rows.gauge("system.linux.psi", "1", value, resource=resource, kind=kind, window="10s")
        network = psutil.net_io_counters()
        name = "system.network.io"
        rows.counter(name, "By", network.bytes_recv, network__io__direction="receive")
        rows.counter(name, "By", network.bytes_sent, network__io__direction="transmit")
        disk = psutil.disk_io_counters()
        if disk is not None:
            rows.counter("system.disk.io", "By", disk.read_bytes, disk__io__direction="read")
            rows.counter("system.disk.io", "By", disk.write_bytes, disk__io__direction="write")

    def _measure_cpu(self, rows: Rows) -> None:
        times = psutil.cpu_times(percpu=True)
        busy, steal = [], []
        for core, (now, before) in enumerate(zip(times, self._cpu, strict=False)):
            # Linux counts guest time within user time as well.
            spent = [
                max(getattr(now, name) - getattr(before, name), 0.0)
                for name in now._fields
                if not name.startswith("guest")
            ]
            total = sum(spent)
            if total <= 0:
                continue
            by_name = dict(zip(now._fields, spent, strict=False))
            idle = by_name["idle"] + by_name.get("iowait", 0.0)
            busy.append((total - idle) / total)
            steal.append(by_name.get("steal", 0.0) / total)
            attributes = {"cpu__logical_number": core}
            rows.gauge("system.cpu.utilization", "1", busy[-1], **attributes)
        self._cpu = times
        if busy:
            rows.gauge("system.cpu.utilization", "1", sum(busy) / len(busy))
            rows.gauge("system.cpu.steal", "1", sum(steal) / len(steal))


def _pressure() -> Iterable[tuple[str, str, float]]:
    """Yield (resource, some or full, share of the last ten seconds) where the kernel says it."""
    for resource in ("cpu", "memory", "io"):
        try:
            text = Path(f"/proc/pressure/{resource}").read_text(encoding="ascii")
        except OSError:
            continue
        for line in text.splitlines():
            kind, average, *_ = line.split()
            yield resource, kind, float(average.removeprefix("avg10=")) / 100


class Cgroup:
    """Memory limit and CPU throttling of the control group (version 2) that a process is in."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._path: Path | None = None
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines():
                number, _, path = line.split(":", 2)
                if number == "0":
                    self._path = Path("/sys/fs/cgroup") / path.lstrip("/")

    def measure(self, rows: Rows) -> None:
        """Add the rows of the group; what it does not limit is left out."""
        if self._path is None:
            return
        rows.instance = f"pid {self._pid}"
        limit = self._number("memory.max")
        usage = self._number("memory.current")
        if limit is not None and usage is not None:
            rows.gauge("container.memory.limit", "By", limit)
            rows.gauge("container.memory.usage", "By", usage)
        quota = self._text("cpu.max").split()
        if len(quota) == 2 and quota[0].isdigit():
            rows.gauge("container.cpu.limit", "{cpu}", int(quota[0]) / int(quota[1]))
            stat = dict(line.split() for line in self._text("cpu.stat").splitlines())
            if "throttled_usec" in stat:
                seconds = int(stat["throttled_usec"]) / 1e6
                rows.counter("container.cpu.throttled.time", "s", seconds)
                rows.counter(
                    "container.cpu.throttled.periods", "{period}", int(stat["nr_throttled"])
                )
                rows.counter("container.cpu.periods", "{period}", int(stat["nr_periods"]))

    def _text(self, name: str) -> str:
        assert self._path is not None
        try:
            return (self._path / name).read_text(encoding="ascii")
        except OSError:
            return ""

    def _number(self, name: str) -> int | None:
        text = self._text(name).strip()
        return int(text) if text.isdigit() else None
