"""Memory that was freed, kept for the next array instead of going back to the kernel."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 1 << 28
_FROM_HEAP_BYTES = 1 << 25
"""As much as glibc allows: https://www.gnu.org/software/libc/manual/html_node/Malloc-Tunable-Parameters.html"""


@cache
def keep(kept_bytes: int = _KEPT_BYTES) -> None:
    """Keep up to so much of what this process frees, from now on.

    Analysis makes and drops arrays of one size all the time. glibc gives each back to the kernel,
    which clears the memory before it hands it out again: a sixth of the time at a million spans.
    Nothing happens with another C library, or where the environment sets these limits itself.
    """
    if any(name.startswith("MALLOC_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _FROM_HEAP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, kept_bytes)


def keep_in_polars() -> None:
    """Let Polars keep for five seconds what it frees, if it is not loaded yet.

    It reads this once, when it is loaded, and adds it to its own half a second, which analysis of
    large tables outlasts again and again: a seventh of the time in shards went into the kernel's
    clearing of that memory. Nothing happens where the environment says it itself.
    """
    if "polars" not in sys.modules:
        os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:5000,muzzy_decay_ms:5000")
