"""Which calls a cache would have answered: the recorded calls replayed against it."""

from __future__ import annotations

import numpy as np

from perfkit.analysis.vector.forest import Bools, Ints, marked_chains
from perfkit.analysis.vector.intervals import distinct
from perfkit.analysis.vector.overlaps import order_by


def hits(key: Ints, start_ns: Ints, end_ns: Ints, lifetime_ns: int) -> Bools:
    """Return which calls find an answer to the same key that is at most `lifetime_ns` old.

    `key` is from 0. An answer is kept from the end of the call that fetched it; what is asked
    before that is fetched again, and does not replace the answer that is kept first. Calls are
    never shorter than 0. Vectorised: the calls that fill the cache form a chain, each the first of
    its key after the answer before it has expired.
    """
    if not len(key):
        return np.zeros(0, dtype=np.bool_)
    keys = int(key.max()) + 1
    order = order_by(key, start_ns, keys)
    key, start, end = key[order], start_ns[order], end_ns[order]
    # Ranks instead of times, so that key and time fit into one number.
    moments = distinct(start)
    axis = key * (len(moments) + 1) + np.searchsorted(moments, start)
    expires = end + lifetime_ns
    after = key * (len(moments) + 1) + np.searchsorted(moments, expires)
    following = np.searchsorted(axis, after)
    # A call without length that is kept for no time must not follow itself, or one beside it.
    following = np.maximum(following, np.arange(1, len(key) + 1))
    following = np.where(following < np.searchsorted(key, key, side="right"), following, -1)
    first = np.append(True, key[1:] != key[:-1])
    fills = marked_chains(following, np.flatnonzero(first))
    filled_by = np.maximum.accumulate(np.where(fills, np.arange(len(key)), 0))
    found = np.empty(len(key), dtype=np.bool_)
    found[order] = (start >= end[filled_by]) & (start < expires[filled_by]) & ~fills
    return found
