"""Compaction keeps every row, happens as a whole or not at all, and lets filters skip the rest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.shapes import requests
from perfkit import layout, merge_parts, model, replacement
from perfkit.analysis.filters import Filters
from perfkit.analysis.session import Tables
from perfkit.analysis.sharded import ShardedTables, open_tables
from perfkit.analysis.shards import buckets_of
from perfkit.capture import Capture, CaptureWriter
from perfkit.cli.main import main
from perfkit.errors import CaptureError
from perfkit.layout import Wanted
from perfkit.manifest import CaptureInfo, WriterLock
from perfkit.merge_parts import compact
from perfkit.replacement import RECORD
from perfkit.stacks import Frame
from tests.analysis.build import S, span_columns
from tests.analysis.test_sharded import QUICK, assert_equal, many, spans_of_many_traces

SPANS, BATCHES = 4_000, 5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a capture of several parts in every table."""
    path = tmp_path / "x.perfkit"
    with CaptureWriter(path, command=["test"]) as writer:
        for batch in range(BATCHES):
            writer.append("spans", requests(batch * SPANS // BATCHES, SPANS // BATCHES))
            ids = {name: [batch] for name in ("trace_hi", "trace_lo", "span_id")}
            writer.append("span_events", {**ids, "ts_ns": [batch], "name": ["exception"]})
            writer.append("span_links", {**ids, "linked_span_id": [7]})
            writer.append("metrics", {"ts_ns": [9 - batch], "name": ["m"], "value": [1.0]})
            stack = writer.stacks.intern([Frame("main", "a.py", 1), Frame("f", "a.py", batch)])
            writer.append("samples", {"ts_ns": [batch], "stack_id": [stack], "count": [1]})
            writer.flush()
    return path


def rows(path: Path) -> dict[str, Counter[Any]]:
    """Return the rows of every table, in no order."""
    capture = Capture.open(path)
    return {name: Counter(capture.table(name).collect().rows()) for name in model.BY_NAME}


def parts(path: Path) -> dict[str, int]:
    return {name: len(list((path / name).glob("part-*"))) for name in model.BY_NAME}


def test_every_row_stays_and_parts_become_few(path: Path) -> None:
    before, info = rows(path), (path / "capture.json").read_bytes()
    assert set(parts(path).values()) == {BATCHES}
    done = compact(path)
    assert (done.parts_before, done.parts_after) == (7 * BATCHES, 7)
    assert rows(path) == before
    assert set(parts(path).values()) == {1}
    assert (path / "capture.json").read_bytes() == info
    assert not list(path.glob(".compaction-*"))
    assert not (path / RECORD).exists()
    names = sorted(path.rglob("part-*"))
    assert compact(path).bytes_after == done.bytes_after
    assert sorted(path.rglob("part-*")) == names, "there was nothing to do"


def test_spans_are_divided_into_buckets_that_shards_read_where_they_are(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows(path)
    monkeypatch.setattr(merge_parts, "_BUCKET_SPANS", 1000)
    compact(path)
    assert rows(path) == before
    capture = Capture.open(path)
    assert parts(path)["spans"] == buckets_of(capture) == 4
    tables = open_tables(capture, Filters(), "shards")
    assert isinstance(tables, ShardedTables)
    assert tables.frame("facts")["spans"].item() == SPANS
    assert not list(tables._division.folder.path.glob("input/spans/**/*.parquet"))
    tables.close()


def test_a_merged_capture_is_compacted_anew(path: Path) -> None:
    compact(path)
    with CaptureWriter(path.with_name("y.perfkit")) as writer:
        writer.append("spans", requests(SPANS, 80))
    for part in (path.with_name("y.perfkit") / "spans").iterdir():
        part.rename(path / "spans" / part.name)
    assert buckets_of(Capture.open(path)) is None
    compact(path)
    assert parts(path)["spans"] == 1
    assert Capture.open(path).table("spans").select(pl.len()).collect().item() == SPANS + 80


_KILLED_AT = textwrap.dedent("""
    import os, sys
    from pathlib import Path
    from perfkit.merge_parts import compact
    left = int(sys.argv[2])
    def counted(change):
        def killed_or(*arguments, **more):
            global left
            left -= 1
            if left < 0:
                os._exit(9)
            return change(*arguments, **more)
        return killed_or
    Path.replace, Path.unlink = counted(Path.replace), counted(Path.unlink)
    compact(Path(sys.argv[1]))
""")


@pytest.mark.real
def test_killed_before_any_change_of_a_name_the_capture_is_whole(path: Path) -> None:
    before = rows(path)
    copy = path.with_name("copy.perfkit")
    for change in range(200):
        subprocess.run(["cp", "-a", path, copy], check=True)
        command = [sys.executable, "-c", _KILLED_AT, str(copy), str(change)]
        done = subprocess.run(command, check=False)
        assert rows(copy) == before, change
        assert not (copy / RECORD).exists()
        subprocess.run(["rm", "-r", copy], check=True)
        if done.returncode == 0:
            break
        assert done.returncode == 9
    assert 20 < change < 199, "it was killed at every change, and then not any more"


def test_what_a_killed_compaction_left_is_gone_before_the_next_one_writes(path: Path) -> None:
    compact(path)
    (path / ".compaction-killed" / "spans").mkdir(parents=True)
    compact(path)  # nothing to do
    assert not list(path.glob(".compaction-*"))


def test_a_decided_compaction_is_carried_out_at_the_next_opening(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows(path)
    with monkeypatch.context() as patch:
        patch.setattr(Capture, "settle", lambda capture: False)
        compact(path)
    assert (path / RECORD).exists()
    # As on a disk that cannot be written: read from where the new parts are.
    unopened = Capture(path, CaptureInfo.load(path / "capture.json"))
    for name in model.BY_NAME:
        assert Counter(unopened.table(name).collect().rows()) == before[name]
    assert rows(path) == before
    assert not (path / RECORD).exists()
    assert set(parts(path).values()) == {1}


_READS = textwrap.dedent("""
    import sys
    from perfkit import replacement
    from perfkit.analysis import sharded
    from perfkit.cli.main import run
    if sys.argv.pop(1) == "unlocked":  # as on a file system where folders cannot be locked
        def flock(*_):
            raise OSError(95, "not supported")
        replacement.fcntl.flock = flock
    sharded.SHARD_SPANS, plan = 1000, sharded.in_order.plan
    def planned(*arguments):
        found = plan(*arguments)
        assert found.count > 2
        print("ready", flush=True)
        sys.stdin.readline()
        return found
    sharded.in_order.plan = planned
    run()
""")


def _reads_while(path: Path, locks: str, meanwhile: Callable[[], None]) -> tuple[int, str, str]:
    """Return exit code and output of a query in shards that has planned what to read when
    something happens to the capture.
    """
    query = ("query", str(path), "SELECT component, count FROM components ORDER BY component")
    command = [sys.executable, "-c", _READS, locks, *query, "--engine", "shards"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        meanwhile()
        printed, complaint = process.communicate("go\n")
    return process.returncode, printed, complaint


@pytest.mark.real
def test_who_reads_parts_in_place_is_not_disturbed_by_a_compaction(path: Path) -> None:
    before = rows(path)
    undisturbed = _reads_while(path, "locked", lambda: None)

    def compacts() -> None:
        done = CliRunner().invoke(main, ["compact", str(path)])
        assert done.exit_code == 0
        assert "35 parts" in done.stdout
        assert "another perfkit reads the capture" in done.stderr
        # Who comes now reads what was decided, and leaves the rest where it is.
        assert rows(path) == before
        with pytest.raises(CaptureError, match="is compacted already"):
            compact(path)
        assert set(parts(path).values()) == {BATCHES}

    assert _reads_while(path, "locked", compacts) == undisturbed
    assert undisturbed[0] == 0
    assert rows(path) == before
    assert set(parts(path).values()) == {1}
    assert not list(path.glob(".compaction-*"))


@pytest.mark.real
def test_without_locks_a_part_that_is_gone_is_one_clear_line(path: Path) -> None:
    code, printed, complaint = _reads_while(path, "unlocked", lambda: _compacts_at_once(path))
    assert (code, printed) == (1, "")
    assert "is gone: while it was read, the capture was compacted" in complaint
    assert "run the command again" in complaint
    assert "Traceback" not in complaint


def _compacts_at_once(path: Path) -> None:
    assert not compact(path).waits


def test_parts_that_change_places_while_they_are_listed_count_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: rows(path)[name] for name in ("spans", "metrics")}
    with monkeypatch.context() as patch:
        patch.setattr(Capture, "settle", lambda capture: False)
        compact(path)
    unlocked = Capture(path, CaptureInfo.load(path / "capture.json"))
    glob = Path.glob

    def carried_out_first(folder: Path, pattern: str) -> Iterator[Path]:
        monkeypatch.setattr(Path, "glob", glob)
        replacement.carry_out(path)
        return glob(folder, pattern)

    monkeypatch.setattr(Path, "glob", carried_out_first)
    for name, expected in before.items():
        assert Counter(unlocked.table(name).collect().rows()) == expected


def test_a_capture_that_is_being_written_is_refused(path: Path) -> None:
    lock = WriterLock(path)
    assert lock.acquire()
    lock.sign()
    try:
        with pytest.raises(CaptureError, match="is being written"):
            compact(path)
    finally:
        lock.release()


def test_a_filter_by_time_reads_that_time_only(path: Path) -> None:
    monkey = Capture.open(path).table("spans").collect()
    first, last = monkey["start_ns"].min(), monkey["start_ns"].max()
    assert isinstance(first, int)
    assert isinstance(last, int)
    middle = Wanted(since_ns=first + (last - first) // 2, until_ns=first + (last - first) * 6 // 10)
    assert _read(path, middle) == SPANS, "nothing is known of parts that are not compacted"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "_RUN_ROWS", 64)
        compact(path)
    assert 0.1 * SPANS <= _read(path, middle) <= 0.25 * SPANS
    assert _read(path, Wanted(until_ns=first)) == 0
    assert _read(path, Wanted()) == SPANS


def test_a_filter_by_endpoint_reads_that_endpoint_only(path: Path) -> None:
    rare = requests(SPANS, 80).with_columns(
        endpoint=pl.when(pl.col("endpoint") == "POST /tools/invoke").then(pl.lit("GET /rare"))
    )
    other = path.with_name("other.perfkit")
    with CaptureWriter(other) as writer:
        writer.append("spans", requests(0, SPANS))
        writer.append("spans", rare)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "_RUN_ROWS", 64)
        compact(other)
    for endpoint in ("GET /rare", "/rare"):
        assert 80 <= _read(other, Wanted(endpoint=endpoint)) <= 80 + 128
    assert _read(other, Wanted(endpoint="/nowhere")) == 0
    tables = open_tables(Capture.open(other), Filters(endpoint="/rare"))
    assert tables.frame("facts")["entries"].item() == 10


def _read(path: Path, wanted: Wanted) -> int:
    capture = Capture.open(path).restricted(wanted)
    return int(capture.table("spans").select(pl.len()).collect().item())


def test_only_the_row_groups_of_the_wanted_rows_are_read(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "_RUN_ROWS", 64)
        patch.setattr(merge_parts, "_GROUP_ROWS", 128)
        compact(path)
    (part,) = (path / "spans").iterdir()
    capture = Capture.open(path)
    starts = capture.table("spans").select(pl.col("start_ns")).collect()["start_ns"]
    early = Wanted(until_ns=starts.min() + (starts.max() - starts.min()) // 20)
    expected = capture.restricted(early).table("spans").collect()
    assert 0 < expected.height < SPANS // 5
    # Whatever lies beyond is not looked at: it may as well be destroyed.
    content = bytearray(part.read_bytes())
    half = len(content) // 2
    metadata_bytes = int.from_bytes(content[-8:-4], "little") + 8
    content[half:-metadata_bytes] = bytes(len(content) - half - metadata_bytes)
    part.write_bytes(content)
    assert capture.restricted(early).table("spans").collect().equals(expected)
    with pytest.raises(pl.exceptions.PolarsError):
        capture.table("spans").collect()


@pytest.mark.slow
@settings(max_examples=5, deadline=None, phases=QUICK)
@given(
    many,
    st.sampled_from(
        [Filters(endpoint="/1"), Filters(since_ns=5, until_ns=15), Filters(until_ns=9)]
    ),
    st.integers(1, 3),
)
def test_what_is_skipped_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, lists: list[list[S]], filters: Filters, buckets: int
) -> None:
    path = tmp_path_factory.mktemp("captures") / "x.perfkit"
    spans = spans_of_many_traces(lists)
    # Of a request of any kind there is at least one, and peers are what they are called.
    spans.append(S(90, 0, 30, trace=90, kind="server", endpoint="GET /1"))
    for span in spans:
        span.columns.pop("peer", None)
    with CaptureWriter(path) as writer:
        writer.append("spans", span_columns(spans))
    whole = Tables(Capture.open(path), filters)
    whole.frame("tree")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "_RUN_ROWS", 1)
        patch.setattr(merge_parts, "_BUCKET_SPANS", -(-len(spans) // buckets))
        expected = Tables(Capture.open(path), filters)
        for name in expected:
            expected.frame(name)
        compact(path)
    assert_equal(expected, open_tables(Capture.open(path), filters))


def test_an_index_that_cannot_be_read_is_as_none() -> None:
    assert layout.read_index({}) is None
    assert layout.read_index({layout.INDEX_KEY: '{"bucket": 1'}) is None
    assert layout.read_index({layout.INDEX_KEY: "[]"}) is None


def test_the_command_says_what_it_did(path: Path) -> None:
    done = CliRunner().invoke(main, ["compact", str(path)])
    assert done.exit_code == 0
    assert done.stdout.startswith("35 parts of ")
    assert " are now 7 of " in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("size", [512, 8192])
@pytest.mark.parametrize(
    "command", [["compact"], ["query", "--engine", "shards"]], ids=["compact", "shards"]
)
def test_a_full_disk_is_one_line_and_loses_nothing(
    path: Path, command: list[str], size: int
) -> None:
    # A limit on the size of files takes the way of a full disk through Polars.
    script = (
        "import resource, sys; from perfkit.cli.main import run; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size})); run()"
    )
    before, asked = rows(path), ["SELECT COUNT(*) AS n FROM requests"] * (command[0] == "query")
    done = subprocess.run(
        [sys.executable, "-c", script, *command, str(path), *asked],
        # Python keeps bytecode that it could write in part (cpython #126606).
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("perfkit: error: ")]
    assert len(said) == 1
    assert re.search("File too large|cannot be written", said[0])
    assert "Traceback" not in done.stderr
    assert rows(path) == before
