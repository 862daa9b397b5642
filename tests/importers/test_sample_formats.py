"""What the formats of profiles mean; their samples are in test_golden.py."""

from __future__ import annotations

import cProfile
import itertools
import json
import marshal
import pstats
import struct
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.errors import InputError
from perfkit.importers import cprofile
from perfkit.importers.base import Source
from tests.importers.memory import MemoryWriter, imported

SAMPLES = Path(__file__).resolve().parent / "samples"


def leaf_ns(writer: MemoryWriter) -> dict[str, int]:
    """Return function -> own time in ns."""
    joined = writer.table("samples").join(writer.table("stacks"), on="stack_id")
    named = joined.join(writer.table("frames"), on="frame_id")
    return dict(named.group_by("function").agg(pl.col("duration_ns").sum()).iter_rows())


def test_own_times_of_cprofile_are_those_of_pstats(tmp_path: Path) -> None:
    profile = cProfile.Profile()
    profile.enable()
    sum(len(str(number)) for number in range(3000))
    json.loads(json.dumps({"a": [1, 2, 3]}))
    profile.disable()
    path = tmp_path / "x.prof"
    profile.dump_stats(path)
    expected: dict[str, int] = {}
    for (_, _, name), (_, _, own, _, _) in pstats.Stats(str(path)).stats.items():  # type: ignore[attr-defined]
        if own > 0:
            expected[name] = expected.get(name, 0) + round(own * 1e9)
    found = leaf_ns(imported(path))
    assert {name for name, own in found.items() if own} == set(expected)
    for name, own in expected.items():
        assert found[name] == pytest.approx(own, abs=20)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**100), 2**100) | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    lambda inner: st.lists(inner, max_size=5).map(tuple)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)  # fmt: skip


@pytest.mark.slow
@given(value=VALUES, version=st.integers(2, marshal.version))
def test_the_safe_reader_reads_what_marshal_writes(
    value: object, version: int, tmp_path: Path
) -> None:
    path = tmp_path / "value"
    path.write_bytes(marshal.dumps(value, version))
    assert cprofile._Marshal(Source(path)).value(0) == value


def test_marshalled_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.prof"
    path.write_bytes(marshal.dumps({("f", 1, "n"): compile("1", "x", "eval")}))
    with pytest.raises(InputError, match=r"not written by cProfile \(marshal type 'c'\)"):
        imported(path)


def test_a_key_of_references_to_references_is_refused(tmp_path: Path) -> None:
    """Every value is a tuple of the one before, twice: hashing the last would take 2^200 steps."""
    number = struct.Struct("<i").pack  # a tuple is ")", here with the flag of a reference, 0x80
    twice = [b"\xa9\x02" + (b"r" + number(n)) * 2 for n in range(200)]
    values = b"".join(b"i" + number(n) + value for n, value in enumerate([b"\xa9\x00", *twice]))
    path = tmp_path / "endless.prof"
    first = b")\x01z\x01fN"
    path.write_bytes(b"{" + first + values + b"r" + number(200) + b"N0")
    with pytest.raises(InputError, match="damaged: no key"):
        imported(path)


def test_statistics_of_the_sampling_profiler_say_so(tmp_path: Path) -> None:
    path = tmp_path / "x.prof"
    stats = {("a.py", 3, "f"): (5, 5, 0.5, 0.5, {}), ("__sampled__",): True}
    path.write_bytes(marshal.dumps(stats))
    writer = imported(path)
    assert leaf_ns(writer) == {"f": 500_000_000}
    assert "is of samples" in writer.info.notes[0]


def test_times_of_a_v8_profile_fill_its_length() -> None:
    path = SAMPLES / "node.cpuprofile"
    profile = json.loads(path.read_text())
    samples = imported(path, started_at_ns=10**18).table("samples")
    end = samples.select(pl.col("ts_ns") + pl.col("duration_ns")).to_series()
    assert samples["ts_ns"][1:].to_list() == end[:-1].to_list()
    assert end[-1] == 10**18 + (profile["endTime"] - profile["startTime"]) * 1000
    assert samples["ts_ns"][0] == 10**18 + profile["timeDeltas"][0] * 1000


def test_austin_says_the_same_in_text_and_in_binary() -> None:
    def stack(name: str) -> set[tuple[str, str, int]]:
        frames = imported(SAMPLES / name).table("frames")
        mine = frames.filter(pl.col("file").str.ends_with("shop.py"))
        return set(mine.select("function", "file", "line").iter_rows())

    assert stack("austin.txt") == stack("austin.mojo")


@pytest.mark.parametrize("unit", ["seconds", "milliseconds", "microseconds", "nanoseconds"])
def test_units_of_speedscope(unit: str, tmp_path: Path) -> None:
    per_second = {"seconds": 1, "milliseconds": 1000, "microseconds": 10**6, "nanoseconds": 10**9}
    one = per_second[unit]
    path = tmp_path / "x.speedscope.json"
    shared = {"frames": [{"name": "a"}, {"name": "b", "file": "b.py", "line": 2}]}
    profiles = [
        {"type": "sampled", "name": "Thread 7 \"main\"", "unit": unit, "startValue": one,
         "endValue": 4 * one, "samples": [[0], [0, 1]], "weights": [one, 2 * one]},
        {"type": "evented", "name": "x", "unit": unit, "startValue": 0, "endValue": 3 * one,
         "events": [{"type": "O", "at": 0, "frame": 0}, {"type": "O", "at": one, "frame": 1},
                    {"type": "C", "at": 2 * one, "frame": 1},
                    {"type": "C", "at": 3 * one, "frame": 0}]},
        {"type": "sampled", "name": "heap", "unit": "bytes", "startValue": 0, "endValue": 1,
         "samples": [[0]], "weights": [1]},
    ]  # fmt: skip
    schema = "https://www.speedscope.app/file-format-schema.json"
    path.write_text(json.dumps({"$schema": schema, "shared": shared, "profiles": profiles}))
    writer = imported(path, started_at_ns=10**18)
    rows = writer.table("samples").select("ts_ns", "duration_ns", "tid", "thread_name").rows()
    second = 10**9
    assert rows == [
        (10**18, second, 7, "main"),
        (10**18 + second, 2 * second, 7, "main"),
        (10**18, second, None, "x"),
        (10**18 + second, second, None, "x"),
        (10**18 + 2 * second, second, None, "x"),
    ]
    assert writer.lost() == {"its values are bytes, not times": 1}


def test_profiles_of_memory_are_refused(tmp_path: Path) -> None:
    from perfkit.formats.pprof import Profile

    profile = Profile(string_table=["", "inuse_space", "bytes"])
    profile.sample_type.add(type=1, unit=2)
    profile.sample.add(location_id=[1], value=[5])
    profile.string_table.append("x" * 100)
    path = tmp_path / "heap.pb"
    path.write_bytes(profile.SerializeToString())
    with pytest.raises(InputError, match="a profile of inuse_space in bytes"):
        imported(path)


def test_inlined_calls_and_labels_of_pprof(tmp_path: Path) -> None:
    from perfkit.formats.pprof import Profile

    names = ["", "cpu", "nanoseconds", "leaf", "inlined", "main", "a.go", "thread_id", "samples",
             "count"]  # fmt: skip
    profile = Profile(string_table=names)
    profile.sample_type.add(type=8, unit=9)
    profile.sample_type.add(type=1, unit=2)
    for number in (3, 4, 5):
        profile.function.add(id=number, name=number, filename=6)
    location = profile.location.add(id=1)
    for number in (3, 4):  # the innermost first
        location.line.add(function_id=number, line=number * 10)
    profile.location.add(id=2).line.add(function_id=5, line=1)
    sample = profile.sample.add(location_id=[1, 2], value=[3, 30_000_000])
    sample.label.add(key=7, num=77)
    path = tmp_path / "cpu.pb"
    path.write_bytes(profile.SerializeToString())
    writer = imported(path)
    [row] = writer.table("samples").to_dicts()
    assert (row["count"], row["duration_ns"], row["tid"]) == (3, 30_000_000, 77)
    frames = writer.table("stacks").sort("depth").join(writer.table("frames"), on="frame_id")
    assert frames.sort("depth")["function"].to_list() == ["main", "inlined", "leaf"]


def test_pyspy_speedscope_has_no_times(shared_data: Path) -> None:
    samples = imported(shared_data / "contextforge" / "pyspy-speedscope.json").table("samples")
    assert samples["ts_ns"].null_count() == samples.height == 3654
    # 50 looks a second, each thread its own.
    assert samples.filter(pl.col("thread_name") == "MainThread")["duration_ns"].median() == 20e6


def test_profiles_in_a_trace_of_chromium_become_samples() -> None:
    writer = imported(SAMPLES / "chrome-profile.json", started_at_ns=10**18)
    samples = writer.table("samples")
    events = json.loads((SAMPLES / "chrome-profile.json").read_text())["traceEvents"]
    chunks = [one["args"]["data"] for one in events if one["ph"] == "P"]
    deltas = [delta for chunk in chunks for delta in chunk.get("timeDeltas", [])]
    assert samples.height == len(deltas) > 0
    # Each but the last lasts until the next.
    begins = samples["ts_ns"].to_list()
    lengths = [after - before for before, after in itertools.pairwise(begins)]
    assert lengths == [delta * 1000 for delta in deltas[1:]]
    assert samples["duration_ns"].to_list() == [*lengths, None]
    functions = set(writer.table("frames")["function"])
    assert {"busy", "outer"} <= functions
