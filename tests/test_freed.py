"""Freed memory is used again. Each way is tried in a process of its own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

_ROUNDS = """
import resource
import numpy as np
from perfkit import freed
{first}
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    arrays = [np.ones(1 << 20) for _ in range(8)]
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(first: str, **environment: str) -> int:
    names = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    names |= {"NUMPY_MADVISE_HUGEPAGE": "0", **environment}
    code = _ROUNDS.format(first=first)
    done = subprocess.run(
        [sys.executable, "-c", code], env=names, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_the_kernel_is_asked_for_memory_once() -> None:
    plain, kept = faults("pass"), faults("freed.keep()")
    assert kept < plain / 2
    # Whoever sets the limits has the last word.
    assert faults("freed.keep()", MALLOC_TRIM_THRESHOLD_="131072") > plain / 2
