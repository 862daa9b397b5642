"""Python's search for cycles among objects, kept rare while many are made that form none."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

_ALLOCATIONS = 1_000_000
"""A search after so many new objects: at a hundred bytes each, every 100 MB."""


@contextlib.contextmanager
def rarely_sought() -> Iterator[None]:
    """Search rarely: rows, and the parsed text of rules, make no cycles, and each search goes
    through all of them.

    It took a sixth to a quarter of the time of importing JSON, a fifth of that of loading rules.
    What was made is then taken for old, unless the program froze objects of its own: a search among
    the young, which would be due at once, would go through all of it.
    """
    before = gc.get_threshold()
    gc.set_threshold(_ALLOCATIONS, *before[1:])
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            # To the permanent generation and from there to the oldest: no object is looked at.
            gc.freeze()
            gc.unfreeze()
        gc.set_threshold(*before)
