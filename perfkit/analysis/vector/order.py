"""Sorting integers, of which equal ones keep their order.

NumPy sorts integers several times as fast when it need not keep it, and faster still when it need
not say where each came from. So places go into the numbers that are sorted. Numbers of 16 bits it
sorts by their digits, which is faster than both, and keeps the order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def stable_order(numbers: NDArray[np.integer[Any]]) -> Ints:
    """Return the order of numbers; equal ones in the order in which they come."""
    if not len(numbers):
        return np.zeros(0, dtype=np.int64)
    values: Ints = numbers.astype(np.int64, copy=False)
    lowest = int(values.min())
    spread = int(values.max()) - lowest
    if spread < 1 << 16:
        return np.argsort((values - lowest).astype(np.uint16), kind="stable")
    if spread >> (62 - _place_bits(values)) == 0:
        return _packed_order(values - lowest)
    order = np.argsort(values)
    ordered = values[order]
    new = np.append(False, ordered[1:] != ordered[:-1])
    if new[1:].all():
        return order
    # Equal values are numbered, and their places sorted within each number.
    number = np.cumsum(new)
    number <<= _place_bits(values)
    number |= order
    number.sort()
    return _places(number)


def order_of_pairs(first: NDArray[np.integer[Any]], second: Ints) -> Ints:
    """Return the order by two numbers, the first before the second; equal pairs as they come."""
    order = stable_order(second)
    return order[stable_order(first[order])]


def _packed_order(values: Ints) -> Ints:
    """Return the order of small numbers, which are overwritten."""
    values <<= _place_bits(values)
    values |= np.arange(len(values))
    values.sort()
    return _places(values)


def _places(packed: Ints) -> Ints:
    packed &= (1 << _place_bits(packed)) - 1
    return packed


def _place_bits(values: Ints) -> int:
    """Return how many bits the place of a value takes."""
    return (len(values) - 1).bit_length()
