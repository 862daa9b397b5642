"""Finding many keys among many: a hash table whose every step is taken for all keys at once.

Twice as fast as sorting at a million keys and three times at ten million, since no key moves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perfkit.analysis.vector.forest import Ints

Keys = NDArray[np.uint64]

_GOLDEN = 0x9E3779B97F4A7C15
"""2**64 by the golden ratio, whose odd multiples spread keys (Knuth, TAOCP volume 3, 6.4)."""


class Places:
    """Where each key stands in an array; of equal keys, where the first does."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.unique = True
        """Whether no two keys are equal."""
        self._tables: list[NDArray[np.int32]] = []
        left = np.arange(len(keys), dtype=np.int32)
        # What finds its slot taken goes into another table; at least one key a slot is placed.
        while left.size:
            table = np.zeros(1 << (2 * left.size).bit_length(), dtype=np.int32)
            slot = _slots(keys[left], table, len(self._tables))
            # The last write stays, so that this is the first of the keys.
            table[slot[::-1]] = left[::-1]
            self._tables.append(table)
            late = np.flatnonzero(table[slot] != left)
            holder = table[slot[late]]
            left = left[late]
            repeats = keys[left] == keys[holder]
            if repeats.any():
                self.unique = False
                left = left[~repeats]

    def of(self, wanted: Keys) -> Ints:
        """Return the place of each wanted key; -1 for those that are not there."""
        found = np.full(len(wanted), -1)
        left = np.arange(len(wanted))
        for number, table in enumerate(self._tables):
            keys = wanted[left] if number else wanted
            place = table[_slots(keys, table, number)]
            hit = self.keys[place] == keys
            found[left[hit]] = place[hit]
            left = left[~hit]
        return found


def _slots(keys: Keys, table: NDArray[np.int32], number: int) -> Ints:
    """Return the slots of keys in a table, which differ from those in any other table."""
    factor = np.uint64((_GOLDEN * (2 * number + 1)) % (1 << 64))
    shift = np.uint64(65 - len(table).bit_length())
    return ((keys * factor) >> shift).view(np.int64)
