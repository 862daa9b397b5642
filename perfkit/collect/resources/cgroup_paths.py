"""Finds the folders of the control groups that a process is in, in version 1, 2 or both.

See cgroups(7). A limit holds for a group and all below it, so the folders above belong to it too.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from perfkit.collect.resources import procfs

UNIFIED = ""
"""The name under which the hierarchy of version 2 stands."""


class Mount(NamedTuple):
    """Where a hierarchy can be seen, and which group of it is at the top there."""

    point: Path
    root: str


def mounts(text: str) -> dict[str, Mount]:
    """Read /proc/PID/mountinfo: controller, or UNIFIED -> the mount; see proc(5)."""
    found: dict[str, Mount] = {}
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        fields, types = left.split(" "), right.split(" ")
        if not separator or len(fields) < 5 or len(types) < 3:
            continue
        mount = Mount(Path(_unescaped(fields[4])), _unescaped(fields[3]))
        if types[0] == "cgroup2":
            found[UNIFIED] = mount
        elif types[0] == "cgroup":
            found.update((name, mount) for name in types[2].split(","))
    return found


def _unescaped(text: str) -> str:
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def memberships(text: str) -> dict[str, str]:
    """Read /proc/PID/cgroup: controller, or UNIFIED -> path of the group."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        number, *rest = line.split(":", 2)
        if len(rest) == 2 and rest[1].startswith("/"):
            names = [UNIFIED] if number == "0" and not rest[0] else rest[0].split(",")
            found.update((name, rest[1]) for name in names)
    return found


def folders(mount: Mount, path: str) -> list[Path]:
    """Return the folder of a group and those above it that can be seen, the group's own first."""
    relative = path.removeprefix(mount.root) if mount.root != "/" else path
    if ".." in Path(relative).parts:
        relative = ""  # outside of what our own namespace shows
    own = mount.point / relative.strip("/")
    if not own.is_dir():
        # As in a container whose groups are mounted at their own root.
        own = mount.point
    above = len(own.parts) - len(mount.point.parts)
    return [own, *list(own.parents)[:above]]


class Groups(NamedTuple):
    """The folders by controller, each with those above it; an empty list when there is none."""

    unified: list[Path]
    memory: list[Path]
    cpu: list[Path]
    cpuacct: list[Path]
    blkio: list[Path]


def find(pid: int) -> Groups:
    """Return where the groups of a process are."""
    seen = mounts(procfs.read("/proc/self/mountinfo"))
    paths = memberships(procfs.read(f"/proc/{pid}/cgroup"))
    return Groups(
        *(
            folders(seen[name], paths[name]) if name in seen and name in paths else []
            for name in (UNIFIED, "memory", "cpu", "cpuacct", "blkio")
        )
    )
