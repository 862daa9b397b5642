"""Columns for the page's scripts, as one inert block of text.

Layout before gzip and base64::

    0        u32, little-endian: length H of the header
    4        the header: UTF-8 JSON, padded with spaces so that 4 + H is a multiple of 8
    4 + H    the arrays, little-endian, each at a multiple of 8 from here

An array stands in the header as `{"$array": [dtype, offset, length]}` with the offset counted from
byte 4 + H, and with a fourth element `"delta"` when its values are the differences of what is meant
(sorted times pack far better so). Equal arrays are stored once. `assets/data.js` is the reader.
"""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

DTYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8")
"""What JavaScript has typed arrays for; 64-bit integers become f8, exact up to 2**53."""

_INTEGERS = ("u1", "i1", "u2", "i2", "u4", "i4")
_EXACT = 2**53
_ALIGN = 8
# Level 6 takes a third of the time of level 9 and gives up one per cent of the size.
_GZIP_LEVEL = 6


@dataclass(frozen=True)
class Delta:
    """A sorted integer column, to be packed as differences and read as a Float64Array."""

    values: npt.NDArray[np.integer[Any]]


def pack(data: dict[str, Any]) -> str:
    """Return `data` as text: JSON-able values, with NumPy arrays and `Delta` anywhere inside.

    The same data gives the same text. Raises ValueError for what a page cannot read: an integer
    beyond 2**53, an array that is not one-dimensional or not of numbers.
    """
    return base64.b64encode(gzip.compress(raw(data), _GZIP_LEVEL, mtime=0)).decode("ascii")


def raw(data: dict[str, Any]) -> bytes:
    """Return the packed bytes before compression."""
    blocks = _Blocks()
    header = json.dumps(
        _replace(data, blocks), separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode("utf-8")
    header += b" " * (-(4 + len(header)) % _ALIGN)
    return b"".join((len(header).to_bytes(4, "little"), header, *blocks.chunks))


class _Blocks:
    """The arrays' bytes, each stored once."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self._size = 0
        self._known: dict[tuple[str, bytes], int] = {}

    def add(self, array: npt.NDArray[Any]) -> list[Any]:
        """Store an array and return its reference."""
        dtype = array.dtype.newbyteorder("<").str[1:]
        content = array.astype(f"<{dtype}", copy=False).tobytes()
        offset = self._known.get((dtype, content))
        if offset is None:
            offset = self._size
            self._known[dtype, content] = offset
            padding = -len(content) % _ALIGN
            self.chunks += [content, bytes(padding)]
            self._size += len(content) + padding
        return [dtype, offset, len(array)]


def _replace(value: Any, blocks: _Blocks) -> Any:
    if isinstance(value, np.ndarray):
        return {"$array": blocks.add(narrow(value))}
    if isinstance(value, Delta):
        return _delta(value.values, blocks)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        if "$array" in value:
            raise ValueError("the key $array is reserved")
        return {str(key): _replace(item, blocks) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace(item, blocks) for item in value]
    return value


def _delta(values: npt.NDArray[Any], blocks: _Blocks) -> dict[str, Any]:
    if values.dtype.kind not in "iu":
        raise ValueError("only integers are packed as differences")
    if len(values) and max(-int(values.min()), int(values.max())) > _EXACT:
        # Times 104 days apart, of a clock that was not set say: to the nearest number that fits.
        return {"$array": blocks.add(narrow(values.astype(np.float64)))}
    steps = np.diff(values, prepend=values.dtype.type(0))
    return {"$array": [*blocks.add(narrow(steps)), "delta"]}


def narrow(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the array in the smallest dtype of `DTYPES` that holds its values exactly."""
    if array.ndim != 1:
        raise ValueError(f"only columns are packed, not {array.ndim} dimensions")
    kind = array.dtype.kind
    if kind == "b":
        return array.astype(np.uint8)
    if kind == "f":
        return _narrow_floats(array)
    if kind not in "iu":
        raise ValueError(f"numbers are packed, not {array.dtype}")
    if not len(array):
        return array.astype(np.uint8)
    low, high = int(array.min()), int(array.max())
    for name in _INTEGERS:
        limits = np.iinfo(name)
        if limits.min <= low and high <= limits.max:
            return array.astype(name)
    if max(-low, high) > _EXACT:
        raise ValueError(f"{low}..{high} does not fit a JavaScript number")
    return array.astype(np.float64)


def _narrow_floats(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return counts that came as floats as integers; other floats keep their precision."""
    floats = array if array.dtype.itemsize in (4, 8) else array.astype(np.float64)
    if not len(floats) or not np.isfinite(floats).all() or np.abs(floats).max() > _EXACT:
        return floats
    integers = floats.astype(np.int64)
    return narrow(integers) if (integers == floats).all() else floats
