"""Files, directories, patterns, standard input and archives; good, damaged and hostile."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.errors import InputError
from perfkit.importers import archives, compression, detect, inputs
from perfkit.importers.base import Source
from tests.importers.memory import imported

SAMPLES = Path(__file__).resolve().parent / "samples"
JAEGER = (SAMPLES / "jaeger.json").read_bytes()
OTLP = (SAMPLES / "otlp.pb").read_bytes()


def zip_of(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tar_of(path: Path, files: dict[str, bytes], mode: str) -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_archives_are_read_like_directories(kind: str, tmp_path: Path) -> None:
    files = {
        "run/a.json": JAEGER,
        "run/b.pb": OTLP,
        "run/README": b"words\n",
        "run/.hidden.json": b"x",
        "__MACOSX/run/a.json": b"x",
    }
    path = tmp_path / "archive"
    path = zip_of(path, files) if kind == "zip" else tar_of(path, files, kind)
    writer = imported(path)
    assert writer.info.rows["spans"] == 5
    assert [source["file"] for source in writer.info.sources] == ["a.json", "b.pb"]
    assert writer.lost() == {"its format is not recognised": 1}


@pytest.mark.parametrize("name", ["../../../evil.json", "/abs/evil.json", "a\\..\\..\\evil.json"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_no_member_leaves_the_folder_for_unpacking(name: str, kind: str, tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b" / "c"
    inner.mkdir(parents=True)
    path = inner / "archive"
    path = zip_of(path, {name: JAEGER}) if kind == "zip" else tar_of(path, {name: JAEGER}, "w")
    before = sorted(os.walk(tmp_path))
    unpacking = tmp_path / "unpacking"
    unpacking.mkdir()
    [(member, _)] = [
        (path.parent, path.write_bytes(b"")) for path, _ in archives.members(path, "x", unpacking)
    ]
    assert member == unpacking
    assert imported(path).info.rows["spans"] == 3
    assert sorted(os.walk(inner)) == [walk for walk in before if str(inner) in walk[0]]


def test_links_and_devices_in_archives_are_passed_over(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_bytes(JAEGER)
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"link{kind!r}")
            info.type, info.linkname = kind, str(secret)
            archive.addfile(info)
    with pytest.raises(InputError, match="nothing in it"):
        imported(path)


def test_bombs_in_archives_are_refused_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "MAX_RATIO_FROM_BYTES", 4 << 20)
    bomb = b" " * (32 << 20)
    for path in (
        zip_of(tmp_path / "bomb.zip", {"a.json": bomb}),
        tar_of(tmp_path / "bomb.tgz", {"a.json": bomb}, "w:gz"),
    ):
        with pytest.raises(InputError, match="decompression bomb"):
            imported(path)


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz"])
def test_archives_that_are_cut_off_or_damaged(kind: str, tmp_path: Path) -> None:
    files = {"a.json": JAEGER, "b.pb": OTLP}
    whole = tmp_path / "whole"
    data = (zip_of(whole, files) if kind == "zip" else tar_of(whole, files, kind)).read_bytes()
    path = tmp_path / "cut"
    # Most of a tar file is padding, where nothing happens.
    told = [end for end in range(4, len(data)) if data[end]]
    for end in told[:: max(1, len(told) // 75)]:
        flipped = bytearray(data)
        flipped[end] ^= 0x55
        for content in (data[:end], bytes(flipped)):
            path.write_bytes(content)
            with contextlib.suppress(InputError):
                assert 0 < imported(path).info.rows["spans"] <= 5


def test_headers_of_a_tar_beyond_measure_are_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 2 << 20
    path = tmp_path / "x.tgz"
    path.write_bytes(gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) + bytes(header.size)))
    with pytest.raises(InputError, match=r"x\.tgz: damaged archive \(a header of 2097152 bytes"):
        imported(path)


NAMES = st.sampled_from(
    [
        "a.json",
        "../a.json",
        "/a.json",
        "a/../../b",
        "C:\\a",
        "",
        "a\n\x1b[2J",
        "ä" * 300,
        "..",
        "x/",
    ]
)
CONTENTS = st.sampled_from([JAEGER, OTLP, JAEGER[:300], b"", b"words", gzip.compress(OTLP)])


@given(members=st.lists(st.tuples(NAMES, CONTENTS), min_size=1, max_size=6), data=st.data())
@settings(max_examples=30)
def test_archives_of_anything(
    members: list[tuple[str, bytes]], data: st.DataObject, tmp_path: Path
) -> None:
    """Nested, encrypted, zip64, names that come twice, a directory that does not fit the files."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of names that come twice
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members:
                with archive.open(name or "-", "w", force_zip64=data.draw(st.booleans())) as file:
                    file.write(content)
            nested = out.getvalue()
            if data.draw(st.booleans()):
                archive.writestr("inner.zip", nested)
    content = bytearray(out.getvalue())
    directory = content.index(b"PK\x01\x02")
    what = data.draw(st.sampled_from(["whole", "encrypted", "moved", "crc", "size"]))
    if what == "encrypted":
        content[directory + 8] |= 1
    elif what == "moved":
        content[-6:-2] = data.draw(st.binary(min_size=4, max_size=4))
    elif what == "crc":
        content[directory + 16] ^= 0xFF
    elif what == "size":
        content[directory + 20 : directory + 28] = data.draw(st.binary(min_size=8, max_size=8))
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    before = sorted(tmp_path.iterdir())
    for keep_going in (False, True):
        with contextlib.suppress(InputError):
            assert imported(path, keep_going=keep_going).info.rows["spans"] <= 5
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("small_bytes", [0, 1 << 20])
def test_a_mark_of_utf8_is_no_part_of_the_content(
    pack: Callable[[bytes], bytes],
    small_bytes: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inputs, "SMALL_BYTES", small_bytes)
    for name in ("jaeger.json", "otlp-lines.jsonl", "pyspy-raw.txt", "psutil.csv"):
        data = (SAMPLES / name).read_bytes()
        plain, marked = tmp_path / f"plain-{name}", tmp_path / name
        plain.write_bytes(data)
        marked.write_bytes(pack(b"\xef\xbb\xbf" + data))
        assert imported(marked).info.rows == imported(plain).info.rows


def utf16_le(data: bytes) -> bytes:
    return codecs.BOM_UTF16_LE + data.decode().encode("utf-16-le")


def utf16_be(data: bytes) -> bytes:
    return codecs.BOM_UTF16_BE + data.decode().encode("utf-16-be")


@pytest.mark.parametrize("encode", [utf16_le, utf16_be])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_text_in_utf16_as_powershell_writes_it(
    encode: Callable[[bytes], bytes], pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    for name in ("jaeger.json", "otlp-lines.jsonl", "pyspy-raw.txt", "psutil.csv", "nginx.log"):
        data = (SAMPLES / name).read_bytes()
        plain, wide = tmp_path / f"plain-{name}", tmp_path / name
        plain.write_bytes(data)
        wide.write_bytes(pack(encode(data)))
        assert imported(wide).info.rows == imported(plain).info.rows
        assert imported(plain, wide).lost()["a copy of another"] == 1


@given(text=st.text(), at=st.integers(0), order=st.sampled_from(["utf-16-le", "utf-16-be"]))
def test_utf16_is_decoded_however_it_is_cut(text: str, at: int, order: str) -> None:
    encoded = ("\ufeff{letters" + text + "\N{GRINNING FACE}").encode(order)
    cut = encoded[: 18 + at % (len(encoded) - 17)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compression, "CHUNK_BYTES", 5)
        out, problem = b"", None
        try:
            for chunk in compression.inflate(io.BytesIO(cut), "x"):
                out += chunk
        except InputError as error:
            problem = error
    assert out.decode() == cut.decode(order, "ignore")[1:]
    whole = cut.decode(order, "ignore").encode(order)
    assert (problem is None) == (whole == cut)
    if problem is not None:
        assert str(problem) == f"x, byte {len(whole)}: cut off: UTF-16 ends within a letter"


def test_damaged_utf16_names_the_place_and_gives_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "psutil.csv"
    text = utf16_le((SAMPLES / "psutil.csv").read_bytes())
    middle = text.index(b"\n\0", len(text) // 2) + 2
    path.write_bytes(text[:middle] + b"\0\xdc" + text[middle:])
    with pytest.raises(InputError, match=rf"psutil\.csv, byte {middle}: damaged UTF-16"):
        imported(path)
    assert imported(path, keep_going=True).info.rows["metrics"] > 0
    # A mark alone is not text of ours.
    path.write_bytes(b"\xff\xfe\x00\x00{\0\0\0")
    with pytest.raises(InputError, match="not recognised"):
        imported(path)


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_other_compressions(pack: object, tmp_path: Path) -> None:
    path = tmp_path / "traces"
    path.write_bytes(pack(JAEGER))
    assert imported(path).info.rows["spans"] == 3


def test_zstd(tmp_path: Path) -> None:
    zstd = pytest.importorskip("backports.zstd", reason="the extra zstd is not installed")
    path = tmp_path / "traces.zst"
    packed = zstd.compress(JAEGER[:500]) + zstd.compress(JAEGER[500:])
    path.write_bytes(packed)
    assert imported(path).info.rows["spans"] == 3
    path.write_bytes(packed[:-5])
    with pytest.raises(InputError, match="cut off: the zstd stream has no end"):
        imported(path, format="jaeger-json")
    path.write_bytes(packed[:20] + b"\xff" * 20 + packed[40:])
    with pytest.raises(InputError, match=r"damaged zstd|not recognised"):
        imported(path)
    tar_of(tmp_path / "x.tar", {"a.json": JAEGER}, "w")
    path.write_bytes(zstd.compress((tmp_path / "x.tar").read_bytes()))
    assert imported(path).info.rows["spans"] == 3


def test_zstd_without_its_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    path = tmp_path / "traces.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
    with pytest.raises(InputError, match="compressed with zstd") as caught:
        imported(path)
    assert caught.value.hint is not None
    assert "perfkit[zstd]" in caught.value.hint


def test_each_content_is_digested_once_however_many_files_are_of_a_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / f"{number}" for number in range(200)]
    for number, file in enumerate(files):
        file.write_text(f"{number % 150:04d}")
    read: list[Path] = []
    digest = inputs._digest

    def counted(path: Path) -> str:
        read.append(path)
        return digest(path)

    monkeypatch.setattr(inputs, "_digest", counted)
    seen = inputs.Seen()
    assert [seen.is_copy(Source(file), lasting=True) for file in files] == [False] * 150 + [
        True
    ] * 50
    assert sorted(read) == sorted(files)
    passing = inputs.Seen()
    assert [passing.is_copy(Source(file), lasting=False) for file in files[100:]] == [
        False
    ] * 50 + ([False] * 50)
    assert passing.is_copy(Source(files[0]), lasting=True)


def test_patterns_and_copies(tmp_path: Path) -> None:
    for name in ("a.json", "deep/b.json", "deep/er/c.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(JAEGER)
    (tmp_path / "deep" / "d.pb").write_bytes(OTLP)
    writer = imported(tmp_path / "**" / "*.json")
    # The same content is read once, however often it is there.
    assert writer.info.rows["spans"] == 3
    assert writer.lost() == {"a copy of another": 2}
    packed = zip_of(tmp_path / "x.zip", {"one.json": JAEGER, "two.pb": OTLP})
    assert imported(tmp_path / "a.json", packed, packed).info.rows["spans"] == 5
    with pytest.raises(InputError, match="no such file"):
        imported(tmp_path / "*.absent")


def test_keep_going_keeps_what_was_read_and_names_the_place(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"t": 1, "cpu": 1}\n{"t": 2, "cpu": 1}\n{"t": 3, "cp')
    (tmp_path / "b.json").write_bytes(JAEGER)
    with pytest.raises(InputError, match=r"a\.jsonl, line 3"):
        imported(tmp_path)
    writer = imported(tmp_path, keep_going=True)
    assert writer.info.rows["spans"] == 3
    assert writer.info.rows["metrics"] == 2
    assert writer.lost() == {"not a JSON object": 1}
    assert any("a.jsonl, line 3: not a JSON object" in note for note in writer.info.notes)


@pytest.mark.parametrize("name", ["pyspy-raw.txt", "psutil.csv", "otlp.pb", "otlp.json"])
def test_copies_are_told_by_content_whatever_their_name_and_compression(
    name: str, tmp_path: Path
) -> None:
    content = (SAMPLES / name).read_bytes()
    once = imported(SAMPLES / name)
    files = {"a": content, "b.gz": gzip.compress(content), "c.bz2": bz2.compress(content)}
    for order in (["a", "b.gz", "c.bz2"], ["c.bz2", "b.gz", "a"], ["b.gz", "b.gz", "c.bz2"]):
        for file in order:
            (tmp_path / file).write_bytes(files[file])
        writer = imported(*(tmp_path / file for file in dict.fromkeys(order)))
        assert writer.info.rows == once.info.rows
        assert writer.lost()["a copy of another"] == len(set(order)) - 1
    packed = zip_of(tmp_path / "x.zip", {"in.gz": gzip.compress(content, 1)})
    assert imported(tmp_path / "a", packed).info.rows == once.info.rows
    # What is damaged is no copy, but said.
    (tmp_path / "cut.gz").write_bytes(gzip.compress(content)[:-6])
    with pytest.raises(InputError, match=r"cut\.gz"):
        imported(tmp_path / "a", tmp_path / "cut.gz", format=detect(Source(SAMPLES / name)).NAME)


def test_small_files_are_read_together_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    for number in range(4):
        text = JAEGER.replace(b"GET /cart/42", b"GET /cart/%d" % number)
        (tmp_path / f"{number}.json").write_bytes(text)
    (tmp_path / "1b.json").write_bytes(JAEGER[:900])
    (tmp_path / "2b.csv").write_bytes((SAMPLES / "psutil.csv").read_bytes())
    (tmp_path / "3b.json").write_bytes(JAEGER.replace(b"GET /cart/42", b"GET /cart/3"))
    (tmp_path / "4.pb").write_bytes(OTLP)
    with pytest.raises(InputError, match=r"1b\.json"):
        imported(tmp_path)
    writer = imported(tmp_path, keep_going=True)
    files = ["0.json", "1.json", "2.json", "2b.csv", "3.json", "4.pb"]
    assert [source["file"] for source in writer.info.sources] == files
    assert writer.lost()["a copy of another"] == 1
    (tmp_path / "1b.json").unlink()
    alone = [imported(tmp_path / file) for file in files]
    together = imported(tmp_path)
    for table in together.info.rows:
        assert together.table(table).equals(pl.concat([one.table(table) for one in alone]))
    packed = zip_of(tmp_path / "x.zip", {f: (tmp_path / f).read_bytes() for f in files})
    assert imported(packed).info.rows == together.info.rows


def records_of(name: str) -> list[object]:
    text = (SAMPLES / name).read_text()
    if name.endswith(".jsonl"):
        return [json.loads(line) for line in text.splitlines()]
    document = json.loads(text)
    return document["data"] if isinstance(document, dict) else document


@pytest.mark.parametrize(
    "name",
    [*("zipkin.json", "jaeger.json", "xray.jsonl", "skywalking-agent.jsonl"),
     *("psutil.jsonl", "request-records.jsonl")],
)  # fmt: skip
def test_records_may_be_a_list_or_lines_or_documents_one_after_another(
    name: str, tmp_path: Path
) -> None:
    records = records_of(name)
    if name == "jaeger.json":  # it has one trace
        records.append(json.loads(json.dumps(records[0]).replace('"spanID": "', '"spanID": "f')))
    texts = {
        "list": json.dumps(records),
        "indented list": json.dumps(records, indent=2),
        "lines": "\n".join(map(json.dumps, records)),
        "documents": "\n".join(json.dumps(record, indent=2) for record in records),
    }
    rows = {}
    for kind, text in texts.items():
        (tmp_path / name).write_text(text)
        rows[kind] = imported(tmp_path / name, started_at_ns=10**18).info.rows
    assert rows["lines"] == rows["list"] == rows["indented list"] == rows["documents"]
    if name != "jaeger.json":
        assert rows["lines"] == imported(SAMPLES / name, started_at_ns=10**18).info.rows


def test_spans_of_jaeger_by_themselves_are_refused_with_what_to_do(tmp_path: Path) -> None:
    trace = json.loads((SAMPLES / "jaeger.json").read_text())["data"][0]
    process = trace["processes"]["p1"]
    lines = [json.dumps({**span, "process": process}) for span in trace["spans"]]
    (tmp_path / "spans.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match="one by one, as Jaeger's store") as error:
        imported(tmp_path / "spans.jsonl")
    assert "/api/traces" in (error.value.hint or "")


LINES = ("otlp-lines.jsonl", "xray.jsonl", "psutil.jsonl", "k6.json", "request-records.jsonl")
OTHER_LINES = ("nginx.log", "nginx-json.log", "pyspy-raw.txt", "openmetrics.txt", "austin.txt")
ROWS = ("psutil.csv", "jmeter.jtl", "locust_stats_history.csv", "pg_stat_statements.csv")


@pytest.mark.parametrize("name", [*LINES, *OTHER_LINES, *ROWS])
def test_keep_going_reads_on_after_a_damaged_line(name: str, tmp_path: Path) -> None:
    lines = (SAMPLES / name).read_bytes().splitlines(keepends=True)
    at = max(2, len(lines) // 2) if len(lines) > 2 else 1
    path = tmp_path / name
    path.write_bytes(b"".join([*lines[:at], b'{"cut": [\n', *lines[at:]]))
    format = detect(Source(SAMPLES / name)).NAME
    with pytest.raises(InputError, match=rf"line {at + 1}"):
        imported(path, format=format)
    writer = imported(path, format=format, keep_going=True)
    assert writer.info.rows == imported(SAMPLES / name).info.rows
    assert [(loss.what, loss.count) for loss in writer.info.lost if loss.what != "rejected"] == [
        ("damaged record", 1)
    ]
    assert any(f"{name}, line {at + 1}: " in note for note in writer.info.notes)


@pytest.mark.parametrize("name", ["zipkin.json", "datadog.json", "skywalking.json", "jaeger.json"])
def test_keep_going_reads_on_after_a_damaged_element(name: str, tmp_path: Path) -> None:
    whole = (SAMPLES / name).read_bytes()
    document = json.loads(whole)
    elements = document["data"] if isinstance(document, dict) else document
    elements.insert(1, "@")
    path = tmp_path / name
    path.write_bytes(json.dumps(document).encode().replace(b'"@"', b'{"spans": 1, "id": [}'))
    with pytest.raises(InputError):
        imported(path)
    path.write_bytes(json.dumps(document).encode().replace(b'"@"', b'{"spans" 1, "id": []}'))
    writer = imported(path, keep_going=True)
    assert writer.info.rows == imported(SAMPLES / name).info.rows
    assert [loss.count for loss in writer.info.lost if loss.what == "damaged record"] == [1]


def test_many_damaged_records_are_counted_and_the_first_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"t": 1, "cpu": 1}\n' + "{bad\n" * 900 + '{"t": 2, "cpu": 1}\n')
    writer = imported(path, keep_going=True)
    assert writer.info.rows["metrics"] == 2
    assert writer.lost() == {"not a JSON object": 900}
    passed = [note for note in writer.info.notes if note.startswith("passed over")]
    assert [note.split(":")[1].rpartition(" ")[2] for note in passed] == list("23456")


def test_keep_going_reads_on_after_a_damaged_member(tmp_path: Path) -> None:
    files = {"a.json": JAEGER[:400], "b.pb": OTLP}
    writer = imported(zip_of(tmp_path / "x.zip", files), keep_going=True)
    assert writer.info.rows["spans"] == imported(SAMPLES / "otlp.pb").info.rows["spans"]
    assert writer.lost() == {"what was read before is kept": 1}


def test_keep_going_with_a_damaged_archive(tmp_path: Path) -> None:
    whole = tar_of(tmp_path / "x.tar", {"a.json": JAEGER, "b.pb": OTLP}, "w").read_bytes()
    path = tmp_path / "cut.tar"
    path.write_bytes(whole[: len(JAEGER) + 1024 + 700])
    writer = imported(path, keep_going=True)
    assert writer.info.rows["spans"] == 3
    assert any("cut.tar" in note for note in writer.info.notes)


@pytest.mark.parametrize("data", [JAEGER, b""])
def test_standard_input(data: bytes, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "perfkit.cli", "import", "-", "-o", tmp_path / "x.perfkit"],
        input=data,
        capture_output=True,
        check=False,
    )
    if data:
        assert (done.returncode, b"3 spans" in done.stderr) == (0, True)
    else:
        assert (done.returncode, b"standard input: empty file" in done.stderr) == (1, True)
        assert not list(tmp_path.iterdir())
