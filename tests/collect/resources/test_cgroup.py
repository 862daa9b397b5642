"""Control groups, version 1 and 2: folders as the kernel lays them out."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from perfkit.collect import processes
from perfkit.collect.resources import cgroup_paths
from perfkit.collect.resources.cgroup import Cgroup
from perfkit.collect.resources.cgroup_paths import Groups, Mount
from perfkit.collect.resources.rows import Rows
from tests.collect.quota import limited


def written(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def measured(groups: Groups) -> dict[tuple[str, str | None], float]:
    rows = Rows.now()
    Cgroup(os.getpid(), groups).measure(rows)
    assert {row[6] for row in rows.rows} <= {processes.instance(os.getpid())}
    return {(row[1], row[7]): row[3] for row in rows.rows}


def unified(*folders: Path) -> Groups:
    return Groups(list(folders), [], [], [], [])


READ, WRITE = '{"disk.io.direction": "read"}', '{"disk.io.direction": "write"}'
MAJOR = '{"system.paging.fault.type": "major"}'
SOME = '{"kind": "some", "resource": "cpu"}'

V2 = {
    "memory.max": "1048576\n",
    "memory.current": "1000\n",
    "memory.stat": "anon 400\nfile 600\ninactive_file 250\npgmajfault 9\n",
    "memory.events": "low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\n",
    "cpu.max": "50000 100000\n",
    "cpu.stat": "usage_usec 5000000\nnr_periods 7\nnr_throttled 3\nthrottled_usec 2500000\n",
    "cpu.pressure": "some avg10=1.50 avg60=0 avg300=0 total=3000000\n",
    "io.stat": "8:0 rbytes=100 wbytes=200 rios=1 wios=2\n8:16 rbytes=1 wbytes=0\n",
}


def test_version_2(tmp_path: Path) -> None:
    own = written(tmp_path / "pod" / "box", V2)
    assert measured(unified(own, tmp_path / "pod", tmp_path)) == {
        ("container.memory.limit", None): 1048576,
        ("container.memory.usage", None): 1000,
        ("container.memory.working_set", None): 750,
        ("container.memory.rss", None): 400,
        ("container.paging.faults", MAJOR): 9,
        ("container.linux.memory.limit_hits", None): 12,
        ("container.linux.oom_kills", None): 1,
        ("container.cpu.limit", None): 0.5,
        ("container.cpu.time", None): 5,
        ("container.cpu.throttled.time", None): 2.5,
        ("container.cpu.throttled.periods", None): 3,
        ("container.cpu.periods", None): 7,
        ("container.linux.psi", SOME): 0.015,
        ("container.linux.psi.time", SOME): 3,
        ("container.disk.io", READ): 101,
        ("container.disk.io", WRITE): 200,
    }


def test_without_limits_nothing_is_said_of_them(tmp_path: Path) -> None:
    written(tmp_path, {"memory.max": "max\n", "memory.current": "5\n", "cpu.max": "max 100000\n"})
    assert measured(unified(tmp_path)) == {}
    assert measured(unified()) == {}


@pytest.mark.parametrize("text", ["", "\n", "x\n", "5 0\n", "-1 100000\n", "5\n", "0 100000\n"])
def test_a_quota_that_is_none(tmp_path: Path, text: str) -> None:
    written(tmp_path, {"cpu.max": text, "cpu.stat": "nr_periods 7\n"})
    assert measured(unified(tmp_path)) == {}


def test_the_tightest_limit_above_counts_with_its_own_usage(tmp_path: Path) -> None:
    top = written(
        tmp_path / "pod",
        {
            "memory.max": "900\n",
            "memory.current": "800\n",
            "cpu.max": "200000 100000\n",
            "cpu.stat": "nr_throttled 5\n",
        },
    )
    own = written(
        top / "box",
        {"memory.max": "1000\n", "memory.current": "10\n", "cpu.max": "max 100000\n"},
    )
    found = measured(unified(own, top, tmp_path))
    assert found["container.memory.limit", None] == 900
    assert found["container.memory.usage", None] == 800
    assert found["container.cpu.limit", None] == 2
    assert found["container.cpu.throttled.periods", None] == 5


def test_version_1(tmp_path: Path) -> None:
    memory = written(
        tmp_path / "memory" / "box",
        {
            "memory.limit_in_bytes": "2000\n",
            "memory.usage_in_bytes": "1500\n",
            "memory.failcnt": "4\n",
            "memory.stat": "cache 1\ntotal_inactive_file 500\ntotal_rss 900\ntotal_pgmajfault 2\n",
            "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
        },
    )
    cpu = written(
        tmp_path / "cpu" / "box",
        {
            "cpu.cfs_quota_us": "150000\n",
            "cpu.cfs_period_us": "100000\n",
            "cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 1500000000\n",
            "cpuacct.usage": "3000000000\n",
        },
    )
    blkio = written(
        tmp_path / "blkio" / "box",
        {"blkio.throttle.io_service_bytes": "8:0 Read 5\n8:0 Write 7\n8:0 Sync 12\nTotal 12\n"},
    )
    groups = Groups([], [memory], [cpu], [cpu], [blkio, tmp_path / "blkio"])
    assert measured(groups) == {
        ("container.memory.limit", None): 2000,
        ("container.memory.usage", None): 1500,
        ("container.memory.working_set", None): 1000,
        ("container.memory.rss", None): 900,
        ("container.paging.faults", MAJOR): 2,
        ("container.linux.memory.limit_hits", None): 4,
        ("container.linux.oom_kills", None): 3,
        ("container.cpu.limit", None): 1.5,
        ("container.cpu.time", None): 3,
        ("container.cpu.throttled.time", None): 1.5,
        ("container.cpu.throttled.periods", None): 4,
        ("container.cpu.periods", None): 10,
        ("container.disk.io", READ): 5,
        ("container.disk.io", WRITE): 7,
    }
    (memory / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (cpu / "cpu.cfs_quota_us").write_text("-1\n")
    assert set(measured(groups)) == {("container.disk.io", READ), ("container.disk.io", WRITE)}


def test_folders_of_a_group(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    whole, part = Mount(tmp_path, "/"), Mount(tmp_path, "/docker/x")
    assert cgroup_paths.folders(whole, "/a/b") == [tmp_path / "a/b", tmp_path / "a", tmp_path]
    assert cgroup_paths.folders(whole, "/") == [tmp_path]
    # In a container the mount begins at the container's own group.
    assert cgroup_paths.folders(part, "/docker/x/a") == [tmp_path / "a", tmp_path]
    assert cgroup_paths.folders(part, "/docker/x") == [tmp_path]
    # What cannot be seen from here: the group that can.
    assert cgroup_paths.folders(whole, "/gone/b") == [tmp_path]
    assert cgroup_paths.folders(whole, "/../other") == [tmp_path]


def test_our_own_groups_are_found() -> None:
    groups = cgroup_paths.find(os.getpid())
    assert any(groups), "no control group found"
    for folders in groups:
        assert all(folder.is_dir() for folder in folders)
        assert all((folder / "cgroup.procs").exists() for folder in folders)


@pytest.fixture
def tenth_of_a_core() -> Iterator[Path]:
    """Make a control group of our own that may use a tenth of a core."""
    with limited(0.1) as group:
        yield group


def test_a_program_that_is_throttled_for_real(tenth_of_a_core: Path) -> None:
    # It goes into the group before it computes.
    code = "input()\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        try:
            (tenth_of_a_core / "cgroup.procs").write_text(str(process.pid))
            groups = cgroup_paths.find(process.pid)
            assert tenth_of_a_core in groups.cpu + groups.unified
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
            deadline = time.monotonic() + 60
            found: dict[tuple[str, str | None], float] = {}
            while found.get(("container.cpu.throttled.periods", None), 0) < 5:
                assert time.monotonic() < deadline, found
                time.sleep(0.1)
                found = measured(groups)
        finally:
            process.kill()
            process.wait()
    assert found["container.cpu.limit", None] == pytest.approx(0.1)
    assert found["container.cpu.throttled.time", None] > 0
    assert found["container.cpu.periods", None] >= 5
