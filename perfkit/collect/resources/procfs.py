"""Reads the texts of /proc and of control groups: text in, numbers out.

Sandboxes and odd kernels leave files or fields out, and a process may end while it is read. So no
parser raises: what a text does not say, or says in another form, is left out. The forms are those
of proc(5) and of Documentation/admin-guide in the Linux sources (cgroup-v2, iostats, psi).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

_MAX_DIGITS = 20  # of 2**64


def read(path: str | Path) -> str:
    """Return the text of a file; empty when it is not there or not for us."""
    try:
        with open(path, "rb", buffering=0) as file:
            parts = []
            while part := file.read(1 << 18):
                parts.append(part)
    except (OSError, ValueError):
        return ""
    return b"".join(parts).decode("utf-8", "replace")


def number(text: str) -> int | None:
    """Return a whole number that is not negative; None for anything else, `max` among it."""
    text = text.strip()
    return int(text) if len(text) <= _MAX_DIGITS and text.isascii() and text.isdigit() else None


def _numbers(fields: list[str]) -> list[int] | None:
    numbers = [number(field) for field in fields]
    return None if None in numbers else [each for each in numbers if each is not None]


def key_values(text: str) -> dict[str, int]:
    """Read lines of `key value`, `key: value` and `key: value kB`; sizes become bytes."""
    found = {}
    for line in text.splitlines():
        key, *rest = line.split()[:3] or [""]
        value = number(rest[0]) if rest else None
        if value is not None:
            found[key.removesuffix(":")] = value * 1024 if rest[1:] == ["kB"] else value
    return found


CPU_MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
"""The first columns of a `cpu` line. Guest time, which follows, is within user time already."""


class Stat(NamedTuple):
    """What /proc/stat says."""

    cpus: dict[int | None, dict[str, int]]
    """Core, or None for all of them -> mode -> clock ticks."""
    counters: dict[str, int]
    """`ctxt`, `processes`, `procs_running`, `procs_blocked`."""


def stat(text: str) -> Stat:
    """Read /proc/stat."""
    result = Stat({}, {})
    for line in text.splitlines():
        key, *fields = line.split() or [""]
        if key.startswith("cpu"):
            core = number(key[3:])
            ticks = _numbers(fields)
            if ticks and len(ticks) >= 4 and (key == "cpu" or core is not None):
                result.cpus[core] = dict(zip(CPU_MODES, ticks, strict=False))
        elif fields and (value := number(fields[0])) is not None and key != "intr":
            result.counters[key] = value
    return result


class Pressure(NamedTuple):
    """One line of a pressure file."""

    kind: str
    """`some` or `full`: whether some or all tasks waited."""
    average: float
    """Share of the last ten seconds, 0 to 1."""
    total_s: float


def pressure(text: str) -> list[Pressure]:
    """Read /proc/pressure/* or *.pressure of a control group."""
    found = []
    for line in text.splitlines():
        kind, *fields = line.split() or [""]
        values = dict(field.partition("=")[::2] for field in fields)
        total = number(values.get("total", ""))
        try:
            average = float(values.get("avg10", "")) / 100
        except ValueError:
            continue
        if kind in ("some", "full") and total is not None and 0 <= average <= 1:
            found.append(Pressure(kind, average, total / 1e6))
    return found


class Disk(NamedTuple):
    """One line of /proc/diskstats; sectors have 512 bytes whatever the device."""

    reads: int
    reads_merged: int
    read_sectors: int
    read_ms: int
    writes: int
    writes_merged: int
    write_sectors: int
    write_ms: int
    in_flight: int
    busy_ms: int
    queued_ms: int


def disks(text: str) -> dict[str, Disk]:
    """Read /proc/diskstats."""
    found = {}
    for line in text.splitlines():
        fields = line.split()
        values = _numbers(fields[3:14])
        if values and len(values) == len(Disk._fields):
            found[fields[2]] = Disk(*values)
    return found


class Link(NamedTuple):
    """One line of /proc/net/dev, as sums."""

    received_bytes: int
    received_errors: int
    received_dropped: int
    sent_bytes: int
    sent_errors: int
    sent_dropped: int


def links(text: str) -> dict[str, Link]:
    """Read /proc/net/dev."""
    found = {}
    for line in text.splitlines():
        name, colon, rest = line.rpartition(":")
        values = _numbers(rest.split()) if colon else None
        if values and len(values) >= 12:
            found[name.strip()] = Link(*(values[place] for place in (0, 2, 3, 8, 10, 11)))
    return found


def net_counters(text: str) -> dict[str, int]:
    """Read /proc/net/snmp or netstat, pairs of lines of names and values: `TcpExt.ListenDrops`."""
    found: dict[str, int] = {}
    lines = text.splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        group, *keys = names.split() or [""]
        same, *counts = values.split() or [""]
        if group == same and len(keys) == len(counts):
            for key, count in zip(keys, counts, strict=True):
                if (value := number(count)) is not None:
                    found[f"{group.removesuffix(':')}.{key}"] = value
    return found


class ProcessStat(NamedTuple):
    """What /proc/PID/stat says."""

    state: str
    minor_faults: int
    major_faults: int
    user_ticks: int
    system_ticks: int
    threads: int
    started_ticks: int
    virtual_bytes: int
    resident_pages: int


def process_stat(text: str) -> ProcessStat | None:
    """Read /proc/PID/stat; None when it is cut off."""
    # The name stands in parentheses and may contain anything, spaces and parentheses too.
    state, *fields = text.rpartition(")")[2].split() or [""]
    values = (
        _numbers([fields[place] for place in (6, 8, 10, 11, 16, 18, 19, 20)])
        if len(fields) > 20
        else None
    )
    return ProcessStat(state, *values) if values else None


def soft_limit(text: str, name: str) -> int | None:
    """Return the soft limit of that name in /proc/PID/limits; None when it is unlimited."""
    for line in text.splitlines():
        if line.startswith(name):
            fields = line[len(name) :].split()
            return number(fields[0]) if fields else None
    return None


# include/net/tcp_states.h, in the words of OpenTelemetry's `network.connection.state`.
TCP_STATES = {
    "01": "established",
    "02": "syn_sent",
    "03": "syn_received",
    "04": "fin_wait_1",
    "05": "fin_wait_2",
    "06": "time_wait",
    "07": "closed",
    "08": "close_wait",
    "09": "last_ack",
    "0A": "listen",
    "0B": "closing",
    "0C": "syn_received",
}


class Connection(NamedTuple):
    """One TCP socket."""

    local_port: int
    peer: str
    peer_port: int
    state: str
    receive_queue: int
    """Bytes not yet read; for a listening socket the connections not yet accepted."""


def connections(text: str, inodes: Collection[int]) -> Iterator[Connection]:
    """Read /proc/net/tcp or tcp6; yields the sockets whose inode is one of these."""
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or number(fields[9]) not in inodes:
            continue
        state = TCP_STATES.get(fields[3])
        try:
            local, remote = fields[1].split(":"), fields[2].split(":")
            waiting = int(fields[4].partition(":")[2], 16)
            found = Connection(
                int(local[1], 16), _address(remote[0]), int(remote[1], 16), state or "", waiting
            )
        except (ValueError, IndexError, struct.error):
            continue
        if state:
            yield found


def _address(text: str) -> str:
    """Decode an address, which stands as 32-bit words in the order of the machine's bytes."""
    words = [int(text[place : place + 8], 16) for place in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    if len(packed) == 4:
        return socket.inet_ntop(socket.AF_INET, packed)
    return socket.inet_ntop(socket.AF_INET6, packed).removeprefix("::ffff:")
