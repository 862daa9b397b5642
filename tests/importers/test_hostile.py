"""Whatever is in a file: an import ends well or with one of perfkit's own errors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.errors import PerfkitError
from perfkit.importers import IMPORTERS
from tests.importers.memory import MemoryWriter, imported

FORMATS = [importer.NAME for importer in IMPORTERS]


def survives(
    path: Path, data: bytes, name: str | None, *, keep_going: bool = False
) -> MemoryWriter | None:
    """Import bytes; null when they were refused. Anything but a PerfkitError fails the test."""
    path.write_bytes(data)
    try:
        return imported(path, format=name, started_at_ns=10**18, keep_going=keep_going)
    except PerfkitError as error:
        refusal = error.message
    assert "\n" not in refusal
    assert len(refusal) < 2000
    assert str(path) in refusal
    assert "truncated" not in refusal or re.search(
        r"(byte|line|element|trace) \d+|its end", refusal
    )
    return None


@pytest.mark.parametrize("name", FORMATS)
def test_files_that_are_cut_off(name: str, samples: dict[str, list[Path]], tmp_path: Path) -> None:
    for sample in samples[name]:
        data = sample.read_bytes()
        # `make test-real` cuts at every byte.
        step = max(1, len(data) * len(samples[name]) // 30)
        for end in [*range(0, len(data), step), *range(max(0, len(data) - 12), len(data))]:
            survives(tmp_path / "cut", data[:end], name)


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_files_with_damage(
    name: str, samples: dict[str, list[Path]], tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(data.draw(st.sampled_from(samples[name])).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["set", "insert", "delete", "repeat"]))
        if kind == "set":
            content[at] = data.draw(st.integers(0, 255))
        elif kind == "insert":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=6))
        elif kind == "delete":
            del content[at : at + data.draw(st.integers(1, 20))]
        else:
            content[at:at] = content[at : at + 200]
        content = content or bytearray(b"x")
    format, keep_going = data.draw(st.sampled_from([name, None])), data.draw(st.booleans())
    survives(tmp_path / "damaged", bytes(content), format, keep_going=keep_going)


NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([2**63, 2**63 - 1, -(2**63), 2**64, 10**30, 1e308, 0, -1, 10**25]),
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    NUMBERS.map(str),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    st.sampled_from(["NaN", "Infinity", "\x00", "\ud7ff", "A" * 300, "0x1F", "9" * 5000]),
)


@st.composite
def changed(draw: st.DrawFn, value: object) -> object:
    """Draw a JSON value like the given one, with some leaves and branches replaced."""
    if draw(st.integers(0, 14)) == 0:
        return draw(st.one_of(LEAVES, st.lists(LEAVES, max_size=2), st.just({}), st.just([])))
    if isinstance(value, dict):
        return {key: draw(changed(item)) for key, item in value.items()}
    if isinstance(value, list):
        return [draw(changed(item)) for item in value]
    return value


@pytest.mark.parametrize(
    "name",
    [
        *(n for n in FORMATS if "json" in n),
        *("pyspy-chrometrace", "request-records", "chrome-trace", "speedscope", "cpuprofile"),
        "pyinstrument",
    ],
)
@given(data=st.data())
def test_json_of_wrong_types_and_huge_numbers(
    name: str, samples: dict[str, list[Path]], tmp_path: Path, data: st.DataObject
) -> None:
    texts = [path for path in samples[name] if path.suffix != ".msgpack"]
    text = data.draw(st.sampled_from(texts)).read_text()
    try:
        documents = [json.loads(text)]
    except ValueError:
        documents = [json.loads(line) for line in text.splitlines() if line.strip()]
    if isinstance(documents[0], list):
        documents = [documents[0][:12]]
    lines = [json.dumps(data.draw(changed(document))) for document in documents]
    keep_going = data.draw(st.booleans())
    survives(tmp_path / "changed", "\n".join(lines).encode(), name, keep_going=keep_going)


ODD = (
    b"\x0a" * 300,
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"resourceSpans":' + b"[" * 100_000,
    b'{"data":[{"spans":[{"spanID":"1","traceID":"1","tags":[{"key":"k","value":' + b"[" * 50_000,
    b"SQLite format 3\0" + bytes(300),
    b"\x1f\x8b" + bytes(100),
    b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b";" * 1000 + b" 1",
    b"a;b " + b"9" * 1000,
    "a;\u0660 \u0661".encode(),
)


@pytest.mark.parametrize("name", [*FORMATS, None])
def test_odd_beginnings(name: str | None, tmp_path: Path) -> None:
    for content in ODD:
        survives(tmp_path / "odd", content, name)


@pytest.mark.parametrize("name", [*FORMATS, None])
@given(content=st.binary(max_size=300))
def test_anything_at_all(name: str | None, content: bytes, tmp_path: Path) -> None:
    survives(tmp_path / "anything", content, name)


def test_deep_values_within_a_good_document(tmp_path: Path) -> None:
    deep = '{"arrayValue":{"values":[' * 3000 + "{}" + "]}}" * 3000
    document = (
        '{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"01","spanId":"02",'
        '"startTimeUnixNano":1,"attributes":[{"key":"deep","value":%s}]}]}]}]}'
    )
    assert survives(tmp_path / "deep", (document % deep).encode(), None) is None
    tag = '{"traceID":"1","spanID":"1","startTime":1,"tags":[{"key":"k","value":%s}]}'
    nested = tag % ("[" * 3000 + "]" * 3000)
    document = '{"traceID":"1","spans":[%s]}'
    assert survives(tmp_path / "deep", (document % nested).encode(), None) is None


CRASHES = sorted((Path(__file__).resolve().parent / "crashes").glob("*/*"))


@pytest.mark.parametrize("path", CRASHES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_once_went_wrong(path: Path, tmp_path: Path) -> None:
    """Inputs that crashed an importer, or took it for ever: a quadratic one does not end."""
    for format in {path.parent.name, None} & {*FORMATS, None}:  # archives are no format
        for keep_going in (False, True):
            survives(tmp_path / "input", path.read_bytes(), format, keep_going=keep_going)


@pytest.mark.real
@pytest.mark.parametrize("name", FORMATS)
def test_cut_off_at_every_byte(name: str, samples: dict[str, list[Path]], tmp_path: Path) -> None:
    for sample in samples[name]:
        data = sample.read_bytes()
        for end in range(len(data)):
            survives(tmp_path / "cut", data[:end], name)
