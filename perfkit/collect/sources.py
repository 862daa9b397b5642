"""What a capture says of its own sources: how they were set, what they saw, what was lost."""

from __future__ import annotations

import os
from importlib import metadata
from typing import Any

from perfkit.collect import runtimes
from perfkit.collect.resources.sampler import ResourceSampler
from perfkit.collect.stacks import StackRecorder
from perfkit.collect.threads import ThreadWatcher
from perfkit.manifest import CaptureInfo
from perfkit.units import duration


def describe_stacks(info: CaptureInfo, stacks: StackRecorder) -> None:
    """Say how stacks were sampled and what was lost."""
    watcher = stacks.watcher
    source: dict[str, Any] = {
        "name": "py-spy",
        "version": _version("py-spy"),
        "pid": stacks.root,
        "command": list(stacks.command),
        "settings": stacks.settings,
        "segments": stacks.segments,
        "stacks_read": stacks.samples,
        "failed_reads": stacks.errors,
        "max_lag_ns": stacks.lag_ns,
        "cost": [stacks.governor.describe()],
        "gil": watcher.gil.describe(),
    }
    info.sources.append(source)
    for what, count, why in stacks.lost:
        info.lose(what, count, why)
    if stacks.errors:
        info.lose(
            "looks of py-spy at the program",
            stacks.errors,
            "stacks changed while they were read",
        )
    if stacks.problem:
        info.note(stacks.problem)
    for pid in sorted(stacks.continued):
        info.note(f"Process {pid} was stopped when py-spy had paused it last, and was continued.")
    if not stacks.segments and not stacks.problem:
        program = os.path.basename(stacks.command[0]) if stacks.command else ""
        info.note(
            "No stacks: no Python process was found under the command. "
            f"{runtimes.code_of(program)}."
        )
    if stacks.segments and stacks.wishes.gil and not source["gil"]:
        info.note("Who held the interpreter's lock (GIL) could not be seen in this program.")
    if watcher.unwatched:
        info.note("Some threads were too many to watch: whether they ran is not known.")


def describe_stops(info: CaptureInfo, watcher: ThreadWatcher) -> None:
    """Say which processes did nothing because something had stopped them."""
    for pid, stopped_ns in sorted(watcher.stopped_ns.items()):
        info.note(
            f"Process {pid} was stopped (SIGSTOP) for about {duration(stopped_ns)}: "
            "it did nothing then."
        )


def describe_resources(info: CaptureInfo, resources: ResourceSampler) -> None:
    """Say how often metrics were measured, and of what they were not."""
    interval_s = round(resources.max_interval_s, 1)
    info.sources.append({"name": "resources", "interval_s": interval_s})
    if resources.unmeasured:
        info.note(f"Of {resources.unmeasured} processes no metrics were recorded: too many.")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
