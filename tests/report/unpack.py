"""The reader of `perfkit.report.pack`, written from its documentation alone."""

from __future__ import annotations

import base64
import gzip
import json
import struct
from typing import Any

import numpy as np


def unpack(text: str) -> Any:
    raw = gzip.decompress(base64.b64decode(text, validate=True))
    (size,) = struct.unpack_from("<I", raw)
    assert (4 + size) % 8 == 0
    body = memoryview(raw)[4 + size :]

    def resolve(value: Any) -> Any:
        if isinstance(value, list):
            return [resolve(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "$array" not in value:
            return {key: resolve(item) for key, item in value.items()}
        dtype, offset, length, *encoding = value["$array"]
        assert dtype in ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8")
        assert offset % 8 == 0
        array = np.frombuffer(body, f"<{dtype}", length, offset)
        if encoding:
            assert encoding == ["delta"]
            array = np.cumsum(array, dtype=np.float64)
        return array

    return resolve(json.loads(raw[4 : 4 + size].decode("utf-8")))
