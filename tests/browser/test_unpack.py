"""What `pack.py` writes, `data.js` reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perfkit.report.pack import Delta, pack
from tests.browser import synthetic

pytestmark = pytest.mark.browser

_READ = """async (packed) => {
  const block = document.body.appendChild(document.createElement("script"));
  block.type = "application/octet-stream";
  block.id = "other";
  block.textContent = packed;
  const plain = (value) => {
    if (ArrayBuffer.isView(value)) {
      return { type: value.constructor.name, values: Array.from(value) };
    }
    if (Array.isArray(value)) return value.map(plain);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
  };
  return plain(await perfkit.unpack.data("other"));
}"""


def test_round_trip(open_page: Any) -> None:
    page = open_page(synthetic.build(requests=5, span_nodes=10, code_nodes=10, samples=10))
    data: dict[str, Any] = {
        "text": "é \U0001f600 </script>",
        "nested": {"list": [1, None, True, {"x": 1.5}], "empty": []},
        "u1": np.array([0, 255]),
        "i1": np.array([-1, 127]),
        "u2": np.array([256, 65535]),
        "i4": np.array([-(2**31), 5]),
        "big": np.array([2**40, -(2**40)]),
        "f4": np.array([0.5, -1.25], dtype=np.float32),
        "f8": np.array([1e-300, 1e300]),
        "bool": np.array([True, False]),
        "none": np.array([], dtype=np.int64),
        "delta": Delta(np.array([5, 7, 7, 2**45], dtype=np.int64)),
    }
    read = page.evaluate(_READ, pack(data))
    assert read["text"] == data["text"]
    assert read["nested"] == data["nested"]
    types = {
        key: value["type"]
        for key, value in read.items()
        if isinstance(value, dict) and "type" in value
    }
    assert types == {
        "u1": "Uint8Array",
        "i1": "Int8Array",
        "u2": "Uint16Array",
        "i4": "Int32Array",
        "big": "Float64Array",
        "f4": "Float32Array",
        "f8": "Float64Array",
        "bool": "Uint8Array",
        "none": "Uint8Array",
        "delta": "Float64Array",
    }
    for key in types:
        expected = data[key].values if isinstance(data[key], Delta) else data[key]
        assert read[key]["values"] == expected.tolist(), key
