"""Programs that are not Python: what of them cannot be recorded, and what can in its place."""

from __future__ import annotations

import os
import re

from perfkit.collect import access

_PROFILERS = {
    r"node|nodejs": "start it with node --cpu-prof and give the .cpuprofile to perfkit import",
    r"java": "record it with async-profiler -o collapsed and give that to perfkit import",
}
_ANY = "record it with perf and give what perf script writes to perfkit import"


def no_stacks(pid: int) -> str | None:
    """Say why there will be no stacks of a process, and how to get some; null for Python.

    Null also where nobody may look what it is: then py-spy says why.
    """
    try:
        program = os.path.basename(os.readlink(f"/proc/{pid}/exe")).removesuffix(" (deleted)")
    except OSError:
        return None
    if access.is_python_tree(pid):
        return None
    return (
        f"no stacks: process {pid} ({program}) does not run Python; its CPU, memory and "
        f"connections are recorded, and the spans and metrics that it sends. {code_of(program)}"
    )


def code_of(program: str) -> str:
    """Say how stacks of a program that is not Python come into a capture."""
    how = next((how for sign, how in _PROFILERS.items() if re.fullmatch(sign, program)), _ANY)
    return f"For its code, {how}"
