"""A file that grew, beside a copy of it from before: what both have counts once."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.errors import InputError
from perfkit.importers import beginnings, inputs, mapped
from tests.importers.memory import MemoryWriter, imported

SAMPLES = Path(__file__).resolve().parent / "samples"
GROWING = (
    *("nginx.log", "apache.log", "nginx-json.log", "postgresql.log", "postgresql-csvlog.csv"),
    *("k6.json", "jmeter.jtl", "locust_stats_history.csv", "psutil.csv", "psutil.jsonl"),
    *("otlp-lines.jsonl", "request-records.jsonl"),
)


def same(one: MemoryWriter, other: MemoryWriter) -> bool:
    return one.info.rows == other.info.rows and all(
        one.table(table).equals(other.table(table)) for table in one.info.rows
    )


@pytest.mark.parametrize("name", GROWING)
def test_a_file_that_grew_is_imported_as_if_it_were_alone(name: str, tmp_path: Path) -> None:
    content = (SAMPLES / name).read_bytes()
    grown = tmp_path / name
    grown.write_bytes(content)
    alone = imported(grown)
    before, packed = tmp_path / f"{name}.1", tmp_path / f"{name}.2.gz"
    for cut in {1, *range(7, len(content), max(1, len(content) // 5)), len(content) - 1}:
        before.write_bytes(content[:cut])
        packed.write_bytes(gzip.compress(content[: cut // 2 + 1]))
        for order in ((before, grown, packed), (packed, grown), (grown, before)):
            both = imported(*order)
            assert same(both, alone)
            assert both.lost()["the beginning of another"] == len(order) - 1
    assert f"not imported, {grown} begins with all of it: {before.name}" in both.info.notes


@given(
    texts=st.lists(st.text("ab", max_size=6), min_size=2, max_size=7),
    length=st.sampled_from([0, 2000]),
    packed=st.lists(st.booleans(), min_size=7, max_size=7),
)
@settings(max_examples=60)
def test_beginnings_are_found_as_by_comparing_all_with_all(
    texts: list[str], length: int, packed: list[bool], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("contents")
    contents: dict[Path, bytes] = {}
    for number, (text, gzipped) in enumerate(zip(texts, packed, strict=False)):
        data = ("#" * length + text).encode()
        path = folder / str(number)
        path.write_bytes(gzip.compress(data) if gzipped else data)
        contents[path] = data
    files = inputs.expand(list(contents), folder)
    known = beginnings.Contents(files, lambda _: True)
    found = {file.path: contents[one.path] for file in files if (one := known.longer(file))}
    for path, content in contents.items():
        grown = {one for one in contents.values() if one.startswith(content) and one != content}
        if content and grown:
            ends = {one for one in grown if not any(b.startswith(one) for b in grown - {one})}
            assert found.pop(path) in ends
    assert not found


@given(
    texts=st.lists(st.text("ab", max_size=6), min_size=1, max_size=7),
    own=st.text("ab", max_size=5),
    length=st.sampled_from([0, 2000]),
)
@settings(max_examples=60)
def test_what_a_member_begins_is_found_as_by_comparing_it_with_all(
    texts: list[str], own: str, length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("contents")
    contents = {folder / str(n): "#" * length + text for n, text in enumerate(texts)}
    for path, text in contents.items():
        path.write_text(text)
    member = folder / "member"
    member.write_text("#" * length + own)
    files = inputs.expand(list(contents), folder)
    known = beginnings.Contents(files, lambda _: True)
    found = known.longer_than_member(inputs.expand([member], folder)[0])
    content = member.read_text()
    grown = {one for one in contents.values() if one.startswith(content) and one != content}
    if not content or not grown:
        assert found is None
    else:
        ends = {one for one in grown if not any(b.startswith(one) for b in grown - {one})}
        assert found is not None
        assert contents[found.path] in ends


def test_few_contents_are_compared_however_many_begin_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, calls = 64, 0
    compared = beginnings._compared

    def counted(*two: beginnings._Content) -> tuple[int, bool]:
        nonlocal calls
        calls += 1
        return compared(*two)

    monkeypatch.setattr(beginnings, "_compared", counted)
    for number in range(2 * count):
        (tmp_path / f"{number:03d}").write_text("#" * 2000 + f"{number:03d}\n")
    files = inputs.expand([tmp_path / f"{2 * number:03d}" for number in range(count)], tmp_path)
    others = [tmp_path / f"{2 * number + 1:03d}" for number in range(count)]
    known = beginnings.Contents(files, lambda _: True)
    for member in inputs.expand(others, tmp_path):
        assert known.longer_than_member(member) is None
    assert calls <= 2 * count * (count.bit_length() + 2)


def test_a_mark_of_utf8_and_utf16_are_no_difference(tmp_path: Path) -> None:
    lines = (SAMPLES / "nginx.log").read_text()
    short, wide, grown = (tmp_path / name for name in ("marked.log", "wide.log", "grown.log"))
    short.write_text("\ufeff" + lines[:99])
    wide.write_text(lines[:-9], encoding="utf-16")
    grown.write_text(lines)
    writer = imported(short, wide, grown)
    assert writer.info.rows == imported(grown).info.rows
    assert writer.lost()["the beginning of another"] == 2


def test_what_is_damaged_is_no_beginning_but_said(tmp_path: Path) -> None:
    content = (SAMPLES / "nginx.log").read_bytes()
    (tmp_path / "whole.log").write_bytes(content)
    (tmp_path / "cut.log.gz").write_bytes(gzip.compress(content[:600])[:-9])
    with pytest.raises(InputError, match=r"cut\.log\.gz.*cut off"):
        imported(tmp_path)


def test_where_the_longer_file_is_not_read_the_shorter_one_is(tmp_path: Path) -> None:
    stacks = (SAMPLES / "pyspy-raw.txt").read_bytes()
    (tmp_path / "short.txt").write_bytes(stacks)
    (tmp_path / "long.txt").write_bytes(stacks + b"and words\n")
    writer = imported(tmp_path)
    assert writer.info.rows == imported(tmp_path / "short.txt").info.rows
    assert list(writer.lost()) == ["its format is not recognised"]


@pytest.mark.parametrize("cut", [20, 200, 376])
def test_a_copy_in_an_archive_is_the_beginning_of_a_file_beside_it(
    cut: int, tmp_path: Path
) -> None:
    content = (SAMPLES / "nginx.log").read_bytes()
    (tmp_path / "nginx.log").write_bytes(content)
    alone = imported(tmp_path)
    (tmp_path / "nginx.log.0").write_bytes(content[: cut // 2])
    with zipfile.ZipFile(tmp_path / "yesterday.zip", "w") as archive:
        archive.writestr("var/log/nginx.log", content[:cut])
        archive.writestr("var/log/nginx.log.1", gzip.compress(content[: cut - 5]))
        archive.writestr("other.log", content[: content.index(b"\n") + 1].replace(b"GET", b"PUT"))
    both = imported(tmp_path)
    assert both.info.rows["spans"] == alone.info.rows["spans"] + 1
    assert both.lost()["the beginning of another"] == 3


def test_what_nothing_reads_is_not_compared(tmp_path: Path) -> None:
    for name in ("a.bin", "b.bin"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(1 << 40)  # to read it would take an hour
    (tmp_path / "c.json").write_bytes((SAMPLES / "zipkin.json").read_bytes())
    assert imported(tmp_path).lost() == {"its format is not recognised": 2}


def test_tables_with_a_mapping_grow_too(tmp_path: Path) -> None:
    rows = [f"a{number},{number + 1},{1795416393000 + number}\n" for number in range(9)]
    (tmp_path / "before.csv").write_text("".join(["TraceID,SpanID,Start\n", *rows])[:99])
    (tmp_path / "now.csv").write_text("".join(["TraceID,SpanID,Start\n", *rows]))
    mapping = mapped.parse("trace_id=TraceID,span_id=SpanID,start_ns=Start:ms")
    assert imported(tmp_path, mapping=mapping).info.rows["spans"] == len(rows)
