"""Errors name the byte at which the value is that could not be read."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from perfkit.errors import InputError
from tests.importers.memory import imported

SAMPLES = Path(__file__).resolve().parent / "samples"
DEEP = b"[" * 5000 + b"]" * 5000


def place_of(path: Path, data: bytes, format: str) -> int:
    """Return the byte that the error names."""
    path.write_bytes(data)
    with pytest.raises(InputError) as error:
        imported(path, format=format, started_at_ns=10**18)
    place = re.search(rf"{path.name}, byte (\d+): ", error.value.message)
    assert place is not None, error.value.message
    return int(place[1])


@pytest.mark.parametrize(
    ("name", "format", "good"),
    [
        ("pyinstrument.speedscope.json", "speedscope", rb'"startValue": ?([\d.]+)'),
        ("node.cpuprofile", "cpuprofile", rb'"lineNumber": ?(\d+)'),
        ("otlp.json", "otlp-json", rb'"endTimeUnixNano": ?("\d+")'),
        ("otlp.json", "otlp-json", rb'"scope": ?(\{)'),
    ],
)
def test_a_value_of_another_type(name: str, format: str, good: bytes, tmp_path: Path) -> None:
    data = (SAMPLES / name).read_bytes()
    at = [match.start(1) for match in re.finditer(good, data)][-1]
    wrong = data[:at] + b'true, "x": ' + data[at:]
    assert place_of(tmp_path / "in", wrong, format) == at


def test_a_span_of_a_large_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perfkit.importers.otlp_json._LARGE_BYTES", 1)
    data = (SAMPLES / "otlp.json").read_bytes()
    at = [match.start(1) for match in re.finditer(rb'"endTimeUnixNano": ?("\d+")', data)][-1]
    wrong = data[:at] + b"true" + data[data.index(b'"', at + 1) + 1 :]
    assert place_of(tmp_path / "in", wrong, "otlp-json") == at


@pytest.mark.parametrize(
    ("name", "format", "before"),
    [
        ("otlp.json", "otlp-json", rb'"endTimeUnixNano": ?("\d+")'),
        ("prometheus.json", "prometheus-json", rb'"resultType": ?(")'),
        ("node.cpuprofile", "cpuprofile", rb'"endTime": ?(\d+)'),
    ],
)
def test_a_value_that_is_too_deep(name: str, format: str, before: bytes, tmp_path: Path) -> None:
    data = (SAMPLES / name).read_bytes()
    found = re.search(before, data)
    assert found is not None
    wrong = data[: found.start(1)] + DEEP + data[found.end(1) :]
    assert found.start(1) < place_of(tmp_path / "in", wrong, format) < found.start(1) + len(DEEP)


def test_a_body_of_datadog(tmp_path: Path) -> None:
    chunks = [[{"trace_id": 1, "span_id": number, "name": "a"} for number in (1, 2)], [7]]
    data = msgspec.msgpack.encode(chunks)
    assert place_of(tmp_path / "in", data, "datadog-json") == len(data) - 1


def test_a_span_of_protobuf(tmp_path: Path) -> None:
    data = (SAMPLES / "otlp.pb").read_bytes()
    at = data.rindex(b"\x12")  # some field of a span
    place = place_of(tmp_path / "in", data[: at + 1] + b"\xff\xff\x7f" + data[at + 1 :],
                     "otlp-protobuf")  # fmt: skip
    assert 0 < place <= at
