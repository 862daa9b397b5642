"""The journal: what was appended comes back, up to where a file is cut or damaged."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.errors import InputError
from perfkit.journal import (
    Journal,
    Kind,
    Record,
    StackMeta,
    TooLarge,
    read_segment,
    segments,
)

RECORDS = st.lists(
    st.builds(Record, st.sampled_from(Kind), st.booleans(), st.binary(max_size=300)), max_size=6
)


def write(directory: Path, records: list[Record]) -> Path:
    journal = Journal(directory)
    for record in records:
        journal.append(record)
    journal.close()
    return segments(directory)[-1]


@given(records=RECORDS)
def test_what_is_appended_comes_back(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record]
) -> None:
    path = write(tmp_path_factory.mktemp("journal"), records)
    assert list(read_segment(path)) == records


@given(records=RECORDS, cut=st.integers(0, 10_000))
def test_a_cut_segment_gives_its_whole_records(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record], cut: int
) -> None:
    path = write(tmp_path_factory.mktemp("journal"), records)
    os.truncate(path, min(cut, path.stat().st_size))
    read = list(read_segment(path))
    assert read == records[: len(read)]
    whole, size = 0, 0
    for record in records:
        size += 16 + len(record.body)
        whole += size <= cut
    assert len(read) == whole


def test_a_damaged_record_ends_the_reading(tmp_path: Path) -> None:
    body = Record(Kind.TRACES_JSON, False, b"x" * 100)
    path = write(tmp_path, [body, body, body])
    data = bytearray(path.read_bytes())
    data[116 + 50] ^= 1
    path.write_bytes(data)
    assert list(read_segment(path)) == [body]


def test_rotation_begins_a_new_segment_and_returns_the_full_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_bytes=10)
    first, second = (Record(Kind.METRICS_JSON, False, text) for text in (b"one" * 9, b"two"))
    journal.append(first)
    assert journal.full
    journal.open_next()
    full = journal.switch().finish()
    assert full != journal.current
    assert not journal.full
    journal.append(second)
    journal.close()
    assert [list(read_segment(path)) for path in segments(tmp_path)] == [[first], [second]]
    assert segments(tmp_path)[0] == full


def test_a_journal_continues_the_numbers_of_an_old_one(tmp_path: Path) -> None:
    write(tmp_path, [])
    write(tmp_path, [])
    assert [path.name for path in segments(tmp_path)] == [
        "otlp-000001.journal",
        "otlp-000002.journal",
    ]


def test_a_failed_append_leaves_no_half_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    record = Record(Kind.TRACES_PROTOBUF, False, b"whole")
    journal.append(record)

    def half(self: Journal, parts: tuple[bytes, bytes]) -> None:
        self._file.write(parts[0] + parts[1][:5])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_write_all", half)
        with pytest.raises(OSError, match="No space"):
            journal.append(Record(Kind.TRACES_PROTOBUF, False, b"half of this is written"))
    journal.append(record)
    journal.close()
    assert list(read_segment(segments(tmp_path)[0])) == [record, record]


def test_a_journal_goes_on_when_the_next_segment_cannot_be_made(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    (tmp_path / "otlp-000002.journal").mkdir()
    with pytest.raises(OSError, match="exists"):
        journal.open_next()
    record = Record(Kind.TRACES_PROTOBUF, False, b"still here")
    journal.append(record)
    journal.close()
    assert list(read_segment(tmp_path / "otlp-000001.journal")) == [record]


def zipped(body: bytes) -> Record:
    return Record(Kind.TRACES_PROTOBUF, True, body)


@given(parts=st.lists(st.binary(max_size=200), min_size=1, max_size=3), zeros=st.integers(0, 3))
def test_gzip_with_several_members_is_inflated(parts: list[bytes], zeros: int) -> None:
    body = b"".join(map(gzip.compress, parts)) + bytes(zeros)
    whole = b"".join(parts)
    assert zipped(body).content() == whole
    assert zipped(body).content(len(whole)) == whole


@given(body=st.binary(min_size=1, max_size=500), cut=st.integers(1, 30))
def test_cut_gzip_is_refused(body: bytes, cut: int) -> None:
    with pytest.raises(InputError):
        zipped(gzip.compress(body)[:-cut]).content(10_000)


@pytest.mark.parametrize(
    "body", [b"", b"plain text", gzip.compress(b"x") + b"junk"], ids=["empty", "plain", "junk"]
)
def test_what_is_no_gzip_is_refused(body: bytes) -> None:
    with pytest.raises(InputError):
        zipped(body).content()


def test_a_bomb_is_refused_without_inflating_it() -> None:
    bomb = gzip.compress(bytes(50 << 20))
    assert len(bomb) < 100_000
    with pytest.raises(TooLarge, match="1048576 bytes"):
        zipped(bomb).content(1 << 20)


def test_a_body_may_inflate_to_the_limit_and_no_further() -> None:
    body = gzip.compress(b"y" * 1000)
    assert len(zipped(body).content(1000)) == 1000
    with pytest.raises(TooLarge):
        zipped(body).content(999)


def test_the_anchor_is_corrected_by_what_py_spy_said_at_its_end() -> None:
    meta = StackMeta(pid=1, rate=100, wall_ns=10**18, monotonic_ns=5 * 10**9)
    unseen_ns = 6_931_472  # ln 2 / 100 s
    assert meta.anchor_wall_ns(10**9) == 10**18 - unseen_ns
    # It stopped 1.003 s after its exec, and its clock then said 1 s: it began 3 ms late.
    stopped = StackMeta(1, 100, 10**18, 5 * 10**9, stopped_monotonic_ns=6_003_000_000)
    assert stopped.anchor_wall_ns(10**9) == 10**18 - unseen_ns + 3_000_000
    # A whole second is our own lateness, and less than nothing cannot be.
    late = StackMeta(1, 100, 10**18, 5 * 10**9, stopped_monotonic_ns=7_000_000_000)
    assert late.anchor_wall_ns(10**9) == 10**18 - unseen_ns + 6_000_000
    early = StackMeta(1, 100, 10**18, 5 * 10**9, stopped_monotonic_ns=5_900_000_000)
    assert early.anchor_wall_ns(10**9) == 10**18 - unseen_ns


def test_where_its_clock_was_read_the_anchor_is_that() -> None:
    meta = StackMeta(
        pid=1,
        rate=100,
        wall_ns=10**18,
        monotonic_ns=5 * 10**9,
        stopped_monotonic_ns=6_003_000_000,
        clock_began_monotonic_ns=5_017_000_000,
    )
    assert meta.anchor_wall_ns(10**9) == 10**18 - 6_931_472 + 17_000_000


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"unknown": 1}'])
def test_damaged_meta_is_an_input_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "stacks-000001.meta"
    path.write_text(text)
    with pytest.raises(InputError, match=r"stacks-000001\.meta"):
        StackMeta.load(path)


@pytest.mark.parametrize("most", [1, 5, 18, 10_000])
def test_what_the_system_takes_in_pieces_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    real = os.writev

    def some(fd: int, parts: list[memoryview]) -> int:
        return real(fd, [b"".join(parts)[:most]])

    monkeypatch.setattr(os, "writev", some)
    records = [Record(Kind.TRACES_PROTOBUF, False, body) for body in (b"", b"a" * 40, b"b")]
    journal = Journal(tmp_path)
    for record in records:
        journal.append(record)
    assert journal.current_bytes == journal.current.stat().st_size
    journal.close()
    assert list(read_segment(segments(tmp_path)[0])) == records
