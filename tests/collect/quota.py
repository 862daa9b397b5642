"""A control group that limits CPU, for tests that throttle a program for real."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perfkit.collect.resources import cgroup_paths


@contextmanager
def limited(ratio: float) -> Iterator[Path]:
    """Make a group of our own that may use so much of a core, of version 1 or 2; skips without."""
    ours = cgroup_paths.find(os.getpid())
    found = [*ours.cpu[:1], *ours.unified[:1]]
    if not found:
        pytest.skip("no control groups here")
    group = found[0] / f"perfkit-test-{os.getpid()}"
    with _delegated(found[0]):
        try:
            group.mkdir()
        except OSError as error:
            pytest.skip(f"control groups cannot be made here: {error}")
        try:
            if (group / "cpu.cfs_quota_us").exists():
                (group / "cpu.cfs_quota_us").write_text(f"{round(ratio * 100_000)}")
            elif (group / "cpu.max").exists():
                (group / "cpu.max").write_text(f"{round(ratio * 100_000)} 100000")
            else:
                pytest.skip("the control groups here do not limit CPU")
            yield group
        finally:
            group.rmdir()


@contextmanager
def _delegated(parent: Path) -> Iterator[None]:
    """Let the groups below one of version 2 limit CPU, if they do not yet and that is allowed."""
    control = parent / "cgroup.subtree_control"
    try:
        able = "cpu" in (parent / "cgroup.controllers").read_text().split()
        needed = able and "cpu" not in control.read_text().split()
        if needed:
            control.write_text("+cpu")
    except OSError:  # version 1, or not ours to change
        needed = False
    try:
        yield
    finally:
        if needed:
            control.write_text("-cpu")
