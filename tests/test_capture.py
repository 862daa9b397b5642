"""Captures on disk: whole parts, locks, recovery, and clear refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import polars as pl
import pytest

from perfkit import capture, long_values, model
from perfkit.batch import Batch
from perfkit.capture import Capture, CaptureWriter, atomic_write
from perfkit.errors import CaptureError
from perfkit.formats.attributes import fragment, json_object
from perfkit.journal import JOURNAL_DIR, RESERVE_NAME, Journal, Kind, Record
from perfkit.manifest import CaptureInfo, WriterLock
from perfkit.parts import conform, write_part
from perfkit.stacks import Frame

ROWS = {"ts_ns": [3, 1, 2], "name": ["c", "a", "b"], "value": [3.0, 1.0, 2.0]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.perfkit"


def test_rows_come_back_in_time_order_with_null_for_absent_columns(path: Path) -> None:
    with CaptureWriter(path, command=["perfkit", "import"]) as writer:
        writer.append("metrics", ROWS)
    capture = Capture.open(path)
    frame = capture.table("metrics").collect()
    assert frame["name"].to_list() == ["a", "b", "c"]
    assert frame["unit"].null_count() == 3
    assert dict(frame.schema) == model.METRICS.schema
    assert capture.finished
    assert capture.info.rows == {"metrics": 3}
    assert capture.info.command == ["perfkit", "import"]
    assert not capture.has("spans")
    assert capture.table("spans").collect().is_empty()


def test_a_batch_brings_rows_and_what_was_rejected(path: Path) -> None:
    batch = Batch({"metrics": {"ts_ns": [1], "name": ["a"]}})
    batch.reject("no name", 2)
    with CaptureWriter(path) as writer:
        writer.add(batch)
        writer.add(batch)
    info = Capture.open(path).info
    assert [(loss.what, loss.count, loss.why) for loss in info.lost] == [("rejected", 4, "no name")]
    assert info.rows == {"metrics": 2}


def cut(**columns: str | None) -> tuple[list[object], int]:
    frame, count = long_values.shortened(pl.DataFrame({k: [text] for k, text in columns.items()}))
    return list(frame.row(0)), count


@pytest.mark.parametrize("over", [-2000, 0, 1, 33, 100_000])
@pytest.mark.parametrize("letter", ["x", "ü", "𝄞"])
def test_who_decodes_a_long_value_keeps_its_beginning_and_no_outcome_changes(
    letter: str, over: int
) -> None:
    limit = long_values.MOST_BYTES
    text = "a" + letter * ((limit + over) // len(letter.encode()))
    early = long_values.beginning(text)
    same_size = len(early.encode()) <= limit + 64
    assert same_size
    again = long_values.beginning(early) == early
    assert again
    found, count = cut(name=early, attributes=json_object([fragment("k", text)]))
    wanted, as_many = cut(name=text, attributes=json.dumps({"k": text}, ensure_ascii=False))
    assert count == as_many == 2 * (len(text.encode()) > limit)
    assert found[0] == wanted[0]
    assert json.loads(str(found[1])) == json.loads(str(wanted[1]))


def test_a_long_list_becomes_the_same_text_whoever_cuts_it() -> None:
    values = ["x" * long_values.MOST_BYTES, 1]
    plain = json.dumps({"k": values}, separators=(",", ":"))
    same = cut(attributes=json_object([fragment("k", values)])) == cut(attributes=plain)
    assert same


def test_values_that_are_too_long_are_cut_and_counted(path: Path) -> None:
    limit = long_values.MOST_BYTES
    members = {"short": "s", "text": "ü" * limit, "list": ["x" * limit, 1], "fits": "y" * 1000}
    rows = {
        "start_ns": [1, 2, 3, 4],
        "attributes": [json.dumps(members), '{"a":1}', None, "no object" * limit],
        "db_statement": [None, "SELECT 1", "z" * limit, "z" * (limit + 1)],
    }
    with CaptureWriter(path) as writer:
        writer.append("spans", rows)
    capture = Capture.open(path)
    assert [(loss.what, loss.count) for loss in capture.info.lost] == [
        ("value longer than 1 MiB", 4)
    ]
    spans = capture.table("spans").collect()
    kept = json.loads(spans["attributes"][0])
    assert kept["text"].startswith("ü" * (limit // 2 - 32) + f"… [cut, it had {2 * limit:,} bytes")
    assert kept["list"].startswith('["xxx')
    assert f" [cut, it had {len(json.dumps(members['list'])):,} bytes" in kept["list"]
    assert (kept["short"], kept["fits"]) == ("s", "y" * 1000)
    assert spans["attributes"][1:3].to_list() == rows["attributes"][1:3]
    assert f"… [cut, it had {9 * limit:,} bytes" in spans["attributes"][3]
    assert spans["db_statement"][:3].to_list() == rows["db_statement"][:3]
    assert spans["db_statement"][3].startswith("z" * (limit - 64) + "… [cut")
    assert long_values.shortened(spans)[1] == 0


def test_values_that_differ_behind_the_cut_are_not_the_same() -> None:
    texts = ["x" * (2 << 20) + end for end in ("a", "b", "a")]
    frame, cut = long_values.shortened(pl.DataFrame({"tool_arguments": texts}))
    first, other, again = frame["tool_arguments"]
    assert cut == 3
    assert first == again != other
    assert max(map(len, (first, other))) <= long_values.MOST_BYTES


def test_small_batches_come_out_whole_and_in_order(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "_FEW_ROWS", 128)
    with CaptureWriter(path) as writer:
        for number in range(1_000):
            names = {"ts_ns": [7], "name": [f"m{number}"]}
            batch = Batch({"metrics": names | ({"unit": ["By"]} if number // 200 % 3 == 0 else {})})
            writer.add(batch)
            batch.tables["metrics"]["name"].append("not there any more")
            if number % 300 == 299:
                writer.append("metrics", {"ts_ns": [7], "name": [f"after m{number}"]})
    found = Capture.open(path).table("metrics").collect()
    wanted = []
    for number in range(1_000):
        wanted.append((f"m{number}", "By" if number // 200 % 3 == 0 else None))
        if number % 300 == 299:
            wanted.append((f"after m{number}", None))
    assert list(found.select("name", "unit").iter_rows()) == wanted


def test_stacks_are_written_once_and_read_once(path: Path) -> None:
    with CaptureWriter(path) as writer:
        first = writer.stacks.intern([Frame("main", "app.py", 1), Frame("work", "app.py", 2)])
        writer.flush()
        assert writer.stacks.intern([Frame("main", "app.py", 1), Frame("work", "app.py", 2)]) == (
            first
        )
    capture = Capture.open(path)
    assert capture.table("stacks").collect().height == 2
    assert capture.table("frames").collect().height == 2


def test_two_captures_merge_by_putting_their_parts_together(tmp_path: Path) -> None:
    paths = [tmp_path / "a.perfkit", tmp_path / "b.perfkit"]
    for each in paths:
        with CaptureWriter(each) as writer:
            writer.append("metrics", ROWS)
            writer.stacks.intern([Frame("main", "app.py", 1)])
    for part in paths[1].glob("*/part-*"):
        part.rename(paths[0] / part.relative_to(paths[1]))
    merged = Capture.open(paths[0])
    assert merged.table("metrics").collect().height == 6
    assert merged.table("stacks").collect().height == 1


def test_an_unknown_column_is_a_programming_error(path: Path) -> None:
    with CaptureWriter(path) as writer, pytest.raises(ValueError, match="no column"):
        writer.append("metrics", {"ts_ns": [1], "colour": ["red"]})


def test_conform_casts_frames_and_fills_empty_columns() -> None:
    frame = conform(model.METRICS, pl.DataFrame({"ts_ns": [1], "value": [2]}))
    assert frame["value"].to_list() == [2.0]
    assert dict(frame.schema) == model.METRICS.schema
    assert dict(conform(model.METRICS, {}).schema) == model.METRICS.schema


def test_nothing_is_written_over(path: Path) -> None:
    with CaptureWriter(path) as writer:
        writer.append("metrics", ROWS)
    with pytest.raises(CaptureError, match="already exists"):
        CaptureWriter(path)
    path.with_name("file.perfkit").write_text("text")
    with pytest.raises(CaptureError, match="already exists"):
        CaptureWriter(path.with_name("file.perfkit"))
    assert Capture.open(path).table("metrics").collect().height == 3


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def fail() -> None:
        with atomic_write(target) as file:
            file.write(b"new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_two_that_write_one_file_at_once_do_not_take_each_other_s_temporary_file(
    tmp_path: Path,
) -> None:
    target = tmp_path / "file"
    with atomic_write(target) as first, atomic_write(target) as second:
        first.write(b"same")
        second.write(b"same")
    assert target.read_text() == "same"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_loses_nothing_that_is_buffered(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = CaptureWriter(path)
    writer.append("metrics", ROWS)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pl.DataFrame, "write_parquet", full)
        with pytest.raises(OSError, match="No space"):
            writer.flush()
    writer.close()
    assert Capture.open(path).table("metrics").collect().height == 3
    assert not list(path.glob("*/.*.tmp"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such capture"),
        (lambda path: path.mkdir(), "not a capture"),
        (lambda path: (path.mkdir(), (path / "capture.json").write_text("{")), "damaged"),
        (lambda path: (path.mkdir(), (path / "capture.json").write_text("[]")), "damaged"),
        (
            lambda path: (
                path.mkdir(),
                (path / "capture.json").write_text('{"format_version": 99}'),
            ),
            "format version 99",
        ),
    ],
    ids=["absent", "other directory", "broken json", "no object", "newer"],
)
def test_what_is_no_capture_is_refused(path: Path, make: object, message: str) -> None:
    make(path)
    with pytest.raises(CaptureError, match=message) as caught:
        Capture.open(path)
    assert "\n" not in caught.value.message


def test_a_damaged_part_is_named(path: Path) -> None:
    with CaptureWriter(path) as writer:
        writer.append("metrics", ROWS)
    (part,) = path.glob("metrics/part-*")
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(CaptureError, match=part.name):
        Capture.open(path).table("metrics")


def test_a_part_of_another_version_is_refused(path: Path) -> None:
    with CaptureWriter(path) as writer:
        writer.append("metrics", ROWS)
    (part,) = path.glob("metrics/part-*")
    pl.read_parquet(part).write_parquet(part, metadata={"perfkit.format_version": "99"})
    with pytest.raises(CaptureError, match="format version 99"):
        Capture.open(path).table("metrics")


def journal_some(path: Path, count: int = 2) -> None:
    """Leave metrics in the journal, as a recorder does."""
    journal = Journal(path / JOURNAL_DIR)
    for number in range(count):
        body = json.dumps({"ts_ns": [number], "name": ["load"], "value": [1.0]}).encode()
        journal.append(Record(Kind.METRICS_ROWS, False, body))
    journal.close()
    (path / JOURNAL_DIR / RESERVE_NAME).write_bytes(bytes(100))


def killed_writer(path: Path) -> None:
    """Begin a capture in a process that is killed before it finishes."""
    code = f"""
        import os, signal
        from pathlib import Path
        from perfkit.capture import CaptureWriter
        writer = CaptureWriter(Path({str(path)!r}))
        writer.append("metrics", {ROWS!r})
        writer.flush()
        writer.append("metrics", {ROWS!r})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)


def test_the_capture_of_a_killed_writer_opens_and_says_so(path: Path) -> None:
    killed_writer(path)
    journal_some(path)
    (path / "metrics" / ".part-x.parquet.1.tmp").write_text("half")
    capture = Capture.open(path)
    assert capture.table("metrics").collect().height == 5
    assert not capture.finished
    assert any("killed" in note for note in capture.info.notes)
    assert capture.info.rows["metrics"] == 5
    assert not (path / JOURNAL_DIR).exists()
    assert not list(path.glob("*/.*.tmp"))
    again = Capture.open(path)
    assert again.table("metrics").collect().height == 5
    assert again.info == capture.info


def test_the_journal_of_a_living_writer_is_left_alone(path: Path) -> None:
    with CaptureWriter(path) as writer:
        writer.append("metrics", ROWS)
        writer.flush()
        journal_some(path)
        assert Capture.open(path).table("metrics").collect().height == 3
        assert list((path / JOURNAL_DIR).glob("*.journal"))
    # Now it is finished, but the journal was not compacted (the disk was full, say).
    assert Capture.open(path).table("metrics").collect().height == 5


def test_a_killed_writer_whose_helper_still_writes_is_waited_for(path: Path) -> None:
    killed_writer(path)
    lock = WriterLock(path)
    assert lock.acquire()
    helper = subprocess.Popen(["sleep", "0.6"], pass_fds=[lock.fd])
    lock.release()
    journal_some(path)
    assert Capture.open(path).table("metrics").collect().height == 5
    assert helper.poll() is not None
    helper.wait()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_capture_on_a_read_only_disk_is_read_as_it_is(path: Path) -> None:
    killed_writer(path)
    journal_some(path)
    (path / "writer.lock").chmod(0o400)
    path.chmod(0o500)
    try:
        assert Capture.open(path).table("metrics").collect().height == 5
    finally:
        path.chmod(0o700)


def test_a_capture_on_a_full_disk_is_read_as_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_writer(path)
    journal_some(path)

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("perfkit.compact.write_part", full)
        assert Capture.open(path).table("metrics").collect().height == 5
    assert list((path / JOURNAL_DIR).glob("*.journal"))
    assert Capture.open(path).table("metrics").collect().height == 5


@pytest.mark.parametrize(
    "hostile",
    [
        {"id": "../../elsewhere"},
        {"id": "a\x00b"},
        {"id": "*"},
        {"id": ""},
        {"id": 5},
        {"created_ns": 10**25},
        {"created_ns": -1},
        {"created_ns": "now"},
        {"cores": [2]},
        {"lost": [{"what": "x"}]},
        {"notes": "one"},
    ],
    ids=str,
)
def test_a_capture_that_says_impossible_things_of_itself_is_refused(
    path: Path, hostile: dict[str, object]
) -> None:
    CaptureInfo.new([]).save(path.with_name("capture.json"))
    content = json.loads(path.with_name("capture.json").read_text())
    path.mkdir()
    (path / "capture.json").write_text(json.dumps(content | hostile))
    with pytest.raises(CaptureError, match="damaged") as caught:
        Capture.open(path)
    assert "\n" not in caught.value.message


def test_info_round_trips(tmp_path: Path) -> None:
    info = CaptureInfo.new(["perfkit", "record"])
    info.lose("spans", 3, "too late")
    info.lose("spans", 2, "too late")
    info.note("a remark")
    info.note("a remark")
    info.save(tmp_path / "capture.json")
    loaded = CaptureInfo.load(tmp_path / "capture.json")
    assert loaded == info
    assert loaded.lost[0].count == 5
    assert loaded.notes == ["a remark"]


def test_parts_of_one_name_replace_each_other(path: Path) -> None:
    with CaptureWriter(path):
        pass
    frame = conform(model.METRICS, ROWS)
    write_part(path, "metrics", "part-a-1", frame)
    write_part(path, "metrics", "part-a-1", frame)
    assert Capture.open(path).table("metrics").collect().height == 3


def test_a_column_that_came_later_is_null_in_an_old_part(tmp_path: Path) -> None:
    path = tmp_path / "x.perfkit"
    with CaptureWriter(path) as writer:
        writer.append("samples", {"ts_ns": [1], "gil_ns": [5]})
    (part,) = (path / "samples").iterdir()
    metadata = pl.read_parquet_metadata(part)
    old = pl.read_parquet(part).drop("gil_ns")
    old.write_parquet(
        part.with_name("part-old.parquet"),
        metadata={key: value for key, value in metadata.items() if key.startswith("perfkit")},
    )
    samples = Capture.open(path).table("samples").collect()
    assert dict(samples.schema) == model.SAMPLES.schema
    assert sorted(samples["gil_ns"].to_list(), key=str) == [5, None]
    pl.DataFrame({"ts_ns": [1], "other": [1]}).write_parquet(
        part.with_name("part-odd.parquet"),
        metadata={key: value for key, value in metadata.items() if key.startswith("perfkit")},
    )
    with pytest.raises(CaptureError, match="columns"):
        Capture.open(path).table("samples").collect()
