"""Parsers of /proc: real texts, cut and broken ones, and psutil as an independent reader."""

# ruff: noqa: E501 - the kernel's lines are as long as they are

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.collect.resources import cgroup, cgroup_paths, procfs

STAT = """\
cpu  15793 277 4721 81940 295 1 108 41 7 8
cpu0 6152 131 1966 43234 39 0 23 16 0 0
cpu1 9641 146 2754 38705 255 0 85 25 0 0
intr 3938323 0 23 0
ctxt 7654321
btime 1795854213
processes 17379
procs_running 11
procs_blocked 2
softirq 1 2 3
"""
PRESSURE = """\
some avg10=72.03 avg60=19.87 avg300=7.19 total=43438016
full avg10=0.00 avg60=0.00 avg300=0.00 total=5
"""
DISKSTATS = """\
   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
 254       0 vda 37176 8656 2763442 6232 34240 39335 3922104 12920 3 5436 20285 17610 58 62 934 57 19
   8       1 sda1 1 2 3 4 5 6 7 8 9 10 11
"""
NET_DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo
    lo: 3721641    7922    0    1    0     0          0         0  3721642    7923    2    3    0  0
eth0:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
"""
NETSTAT = """\
TcpExt: SyncookiesSent ListenOverflows ListenDrops
TcpExt: 0 26 29
IpExt: InNoRoutes OutMcastPkts
IpExt: 4 -1
"""
# A process whose name has spaces and parentheses in it.
PROCESS = (
    "4242 (a) b (c) S 1 4242 4242 0 -1 4194304 99 0 7 0 120 34 0 0 20 0 5 0 59885 3133440 359 "
    "18446744073709551615 94600792469504 94600792489385 140734526363024 0 0 0 0 0 0 0 0 0 17 1 0 0"
)
LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max open files            1024                 524288               files
"""
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F40 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 1145 1 0
   1: 0100007F:B7A2 0100007F:1538 01 00000000:00000000 00:00000000 00000000     0        0 19491 1 0
   2: 0100007F:B7A3 0100007F:1538 06 00000000:00000000 00:00000000 00000000     0        0 0 1 0
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx
   0: 00000000000000000000000001000000:1F41 00000000000000000000000001000000:C350 08 00000000:00000001 00:0 0 0 0 77 1
   1: 0000000000000000FFFF00000100007F:1F41 0000000000000000FFFF00000200A8C0:C351 01 00000000:00000000 00:0 0 0 0 78 1
"""
MOUNTINFO = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 /docker/ab /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/a\\040b rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""
MEMBERSHIPS = "4:memory:/a:b/c\n3:cpu,cpuacct:/docker/ab\n1:name=systemd:/x\n0::/user.slice\n"


def test_cores_and_run_queue() -> None:
    stat = procfs.stat(STAT)
    assert set(stat.cpus) == {None, 0, 1}
    assert stat.cpus[None]["user"] == 15793
    assert stat.cpus[None]["steal"] == 41
    assert "guest" not in stat.cpus[None]
    assert stat.cpus[1]["idle"] == 38705
    assert stat.counters["procs_running"] == 11
    assert stat.counters["ctxt"] == 7654321
    # An old kernel has four columns only; a core without numbers is left out.
    assert procfs.stat("cpu 1 2 3 4\ncpu0\ncpux 1 2 3 4\n").cpus == {
        None: {"user": 1, "nice": 2, "system": 3, "idle": 4}
    }


def test_pressure() -> None:
    assert procfs.pressure(PRESSURE) == [("some", 0.7203, 43.438016), ("full", 0.0, 5e-6)]
    assert procfs.pressure("some avg10=x total=1\nsome avg10=1.0\nfull avg10=1e9 total=5\n") == []


def test_disks() -> None:
    found = procfs.disks(DISKSTATS)
    assert found["vda"].read_sectors == 2763442
    assert found["vda"].write_ms == 12920
    assert (found["vda"].in_flight, found["vda"].busy_ms, found["vda"].queued_ms) == (
        3,
        5436,
        20285,
    )
    assert found["sda1"].queued_ms == 11
    assert procfs.disks("254 0 vda 1 2 3\n254 0 vdb 1 2 3 4 5 6 7 8 9 10 x\n") == {}


def test_interfaces() -> None:
    assert procfs.links(NET_DEV) == {
        "lo": (3721641, 0, 1, 3721642, 2, 3),
        "eth0": (1, 3, 4, 9, 11, 12),
    }


def test_tcp_counters() -> None:
    counters = procfs.net_counters(NETSTAT)
    assert counters["TcpExt.ListenOverflows"] == 26
    assert counters["IpExt.InNoRoutes"] == 4
    assert "IpExt.OutMcastPkts" not in counters
    assert procfs.net_counters("TcpExt: A B\nTcpExt: 1\n") == {}
    assert procfs.net_counters("TcpExt: A\nIpExt: 1\n") == {}


def test_a_process() -> None:
    stat = procfs.process_stat(PROCESS)
    assert stat == ("S", 99, 7, 120, 34, 5, 59885, 3133440, 359)
    assert procfs.process_stat(PROCESS[:60]) is None
    assert procfs.process_stat("") is None


def test_limits() -> None:
    assert procfs.soft_limit(LIMITS, "Max open files") == 1024
    assert procfs.soft_limit(LIMITS, "Max cpu time") is None
    assert procfs.soft_limit("Max open files\n", "Max open files") is None


def test_keys() -> None:
    text = "MemTotal:   16 kB\nThreads:\t5\nname: x\nodd\n\nnr_periods 7\nVmSwap:\n"
    assert procfs.number("9" * 5000) is None
    assert procfs.key_values(text) == {"MemTotal": 16384, "Threads": 5, "nr_periods": 7}


@pytest.mark.skipif(sys.byteorder != "little", reason="the fixture is of such a machine")
def test_connections() -> None:
    assert list(procfs.connections(TCP, {1145, 19491})) == [
        (8000, "0.0.0.0", 0, "listen", 3),
        (47010, "127.0.0.1", 5432, "established", 0),
    ]
    assert list(procfs.connections(TCP6, {77, 78})) == [
        (8001, "::1", 50000, "close_wait", 1),
        (8001, "192.168.0.2", 50001, "established", 0),
    ]
    for odd in ("0100:x 01", "-100007F:1538 01", "0100007F0100007F:1538 01", ":1538 01", "FF 01"):
        broken = TCP.replace("0100007F:1538 01", odd)
        assert len(list(procfs.connections(broken, {1145, 19491}))) == 1


def test_connections_of_our_own() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    try:
        inodes = {os.fstat(each.fileno()).st_ino for each in (server, client)}
        text = Path("/proc/self/net/tcp").read_text()
        found = {each.state: each for each in procfs.connections(text, inodes)}
        assert found["listen"].receive_queue == 1  # nobody accepted it
        assert found["established"].peer == "127.0.0.1"
        assert found["established"].peer_port == server.getsockname()[1]
        assert found["established"].local_port == client.getsockname()[1]
    finally:
        client.close()
        server.close()


def test_where_groups_are() -> None:
    mounts = cgroup_paths.mounts(MOUNTINFO)
    assert {"cpu", "cpuacct", "memory", ""} <= set(mounts)
    assert mounts["memory"].point == Path("/sys/fs/a b")
    assert mounts["cpu"].root == "/docker/ab"
    assert mounts[""].point == Path("/sys/fs/cgroup/unified")
    assert cgroup_paths.memberships(MEMBERSHIPS) == {
        "memory": "/a:b/c",
        "cpu": "/docker/ab",
        "cpuacct": "/docker/ab",
        "name=systemd": "/x",
        "": "/user.slice",
    }


PARSERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "stat": (procfs.stat, STAT),
    "pressure": (procfs.pressure, PRESSURE),
    "diskstats": (procfs.disks, DISKSTATS),
    "net/dev": (procfs.links, NET_DEV),
    "netstat": (procfs.net_counters, NETSTAT),
    "PID/stat": (procfs.process_stat, PROCESS),
    "limits": (lambda text: procfs.soft_limit(text, "Max open files"), LIMITS),
    "key_values": (procfs.key_values, STAT),
    "tcp": (lambda text: list(procfs.connections(text, {1145, 19491})), TCP),
    "tcp6": (lambda text: list(procfs.connections(text, {77, 78})), TCP6),
    "mountinfo": (cgroup_paths.mounts, MOUNTINFO),
    "cgroup": (cgroup_paths.memberships, MEMBERSHIPS),
    "io.stat": (cgroup.io_v2, "8:0 rbytes=5 wbytes=7 rios=1\n8:16 rbytes=1\n"),
    "blkio": (cgroup.io_v1, "8:0 Read 5\n8:0 Write 7\n8:0 Total 12\nTotal 12\n"),
    "cpu.max": (cgroup.quota, "50000 100000\n"),
}


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
def test_no_text_is_too_odd(name: str, data: st.DataObject) -> None:
    """Cut anywhere, with pieces replaced by anything: a parser never raises."""
    parse, text = PARSERS[name]
    begin = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(begin, len(text)))
    odd = data.draw(
        st.text(st.sampled_from("0123456789 -:=.\n\t()xé٣²\0/"), max_size=30) | st.text()
    )
    parse(text[:begin] + odd + text[end:])
    parse(text[begin:end])


@pytest.mark.parametrize("name", PARSERS)
def test_nothing_gives_nothing(name: str) -> None:
    parse, text = PARSERS[name]
    assert not parse("") or name == "stat"
    assert parse(text)


def test_a_file_that_is_not_there() -> None:
    assert procfs.read("/proc/0/stat") == ""
    assert procfs.read("/proc/self/fd") == ""
    assert procfs.read("/proc/self/\0") == ""


def test_psutil_reads_the_same() -> None:
    pid = os.getpid()
    stat = procfs.process_stat(procfs.read(f"/proc/{pid}/stat"))
    assert stat is not None
    process = psutil.Process(pid)
    boot = psutil.boot_time()
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    assert boot + stat.started_ticks * tick_s == pytest.approx(process.create_time(), abs=1.5)
    assert stat.threads == process.num_threads()
    assert stat.virtual_bytes == pytest.approx(process.memory_info().vms, rel=0.2)
    used = process.cpu_times()
    assert stat.user_ticks * tick_s == pytest.approx(used.user, abs=1.0)
    assert stat.system_ticks * tick_s == pytest.approx(used.system, abs=1.0)
    memory = procfs.key_values(procfs.read("/proc/meminfo"))
    assert memory["MemTotal"] == psutil.virtual_memory().total
    links = procfs.links(procfs.read("/proc/self/net/dev"))
    for name, counts in psutil.net_io_counters(pernic=True, nowrap=False).items():
        assert 0 <= counts.bytes_recv - links[name].received_bytes < 1 << 30
        assert 0 <= counts.dropout - links[name].sent_dropped < 1000
    disks = procfs.disks(procfs.read("/proc/diskstats"))
    for name, each in (psutil.disk_io_counters(perdisk=True, nowrap=False) or {}).items():
        assert 0 <= each.read_count - disks[name].reads < 1_000_000
        assert 0 <= each.write_bytes - disks[name].write_sectors * 512 < 1 << 32
        assert 0 <= each.busy_time - disks[name].busy_ms < 600_000
