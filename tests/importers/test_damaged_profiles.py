"""What `--keep-going` keeps of damaged profiles, metrics and tables."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from perfkit.errors import InputError, PerfkitError
from perfkit.importers import json_prefix, mapped
from tests.importers.memory import MemoryWriter, imported

SAMPLES = Path(__file__).resolve().parent / "samples"
NOW_NS = 1_795_871_323_000_000_000


def keeping(path: Path, format: str | None = None) -> MemoryWriter:
    return imported(path, format=format, started_at_ns=NOW_NS, keep_going=True)


def written(folder: Path, data: bytes) -> Path:
    path = folder / "input"
    path.write_bytes(data)
    return path


def stacks(writer: MemoryWriter) -> pl.DataFrame:
    """Return time, length and stack of each sample."""
    known = {row["stack_id"]: row for row in writer.table("stacks").to_dicts()}
    frames = {row["frame_id"]: row["function"] for row in writer.table("frames").to_dicts()}

    def text(stack_id: int | None) -> str:
        names = []
        while stack_id is not None:
            names.append(frames[known[stack_id]["frame_id"]])
            stack_id = known[stack_id]["parent_id"]
        return ";".join(reversed(names))

    samples = writer.table("samples")
    return samples.select("ts_ns", "duration_ns", "count").with_columns(
        stack=pl.Series([text(one) for one in samples["stack_id"]], dtype=pl.String)
    )


def speedscope(*, frames_first: bool = True, events: bool = False) -> bytes:
    drawn = random.Random(3)
    profiles: list[dict[str, Any]] = []
    for thread in range(3):
        profile: dict[str, Any] = {
            "type": "evented" if events else "sampled",
            "name": f"thread {thread + 1}",
            "unit": "milliseconds",
            "startValue": 0,
            "endValue": 600,
        }
        if events:
            profile["events"] = [
                {"type": kind, "at": at + shift, "frame": at % 7}
                for at in range(0, 600, 2)
                for kind, shift in (("O", 0), ("C", 1))
            ]
        else:
            profile["samples"] = [
                [drawn.randrange(7) for _ in range(drawn.randrange(1, 5))] for _ in range(300)
            ]
            profile["weights"] = [2] * 300
        profiles.append(profile)
    shared = {"frames": [{"name": f"f{n}", "file": "a.py", "line": n + 1} for n in range(7)]}
    parts = {"shared": shared, "profiles": profiles}
    ordered = parts if frames_first else dict(reversed(parts.items()))
    head = {"$schema": "https://www.speedscope.app/file-format-schema.json", "exporter": "x"}
    return json.dumps(head | ordered).encode()


def cpuprofile() -> bytes:
    call = {"url": "file:///a.js", "lineNumber": 3, "columnNumber": 0, "scriptId": "1"}
    nodes = [
        {"id": n + 1, "callFrame": {"functionName": f"f{n}", **call}, "children": [n + 2]}
        for n in range(19)
    ]
    nodes.append({"id": 20, "callFrame": {"functionName": "f19", **call}, "children": []})
    drawn = random.Random(5)
    samples = [drawn.randrange(1, 21) for _ in range(500)]
    return json.dumps(
        {
            "nodes": nodes,
            "startTime": 1000,
            "endTime": 1000 + 500 * 7,
            "samples": samples,
            "timeDeltas": [7] * 500,
        }
    ).encode()


def session() -> bytes:
    drawn = random.Random(7)
    records = [
        [[f"f{n}\x00a.py\x00{n + 1}\x01l{n + 2}" for n in range(drawn.randrange(1, 6))], 0.001]
        for _ in range(300)
    ]
    head = {"start_time": 1.79e9, "duration": 0.3, "sample_count": 300, "start_call_stack": []}
    return json.dumps(head | {"frame_records": records}).encode()


def events() -> bytes:
    found: list[dict[str, Any]] = [
        {"name": "process_name", "ph": "M", "pid": 1, "args": {"name": "main"}}
    ]
    found += [
        {"name": f"e{n}", "ph": "X", "ts": n * 10.0, "dur": 4, "pid": 1, "tid": 2, "args": {"n": n}}
        for n in range(300)
    ]
    return json.dumps({"traceEvents": found}).encode()


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("cprofile.prof", "samples"),
        ("viztracer.json", "spans"),
        ("pyspy-chrometrace.json", "samples"),
        ("pyinstrument.pyisession", "samples"),
    ],
)
def test_what_is_before_the_end_of_a_cut_profile_is_kept(
    name: str, table: str, tmp_path: Path
) -> None:
    data = (SAMPLES / name).read_bytes()
    undamaged = imported(SAMPLES / name, started_at_ns=NOW_NS)
    format = undamaged.info.sources[-1]["format"]
    counts = []
    for end in range(1, len(data) + 1, 11):
        try:
            counts.append(keeping(written(tmp_path, data[:end]), format).info.rows.get(table, 0))
        except PerfkitError:
            counts.append(0)
    # An event that opens is nothing until it is closed.
    assert counts == sorted(counts)
    assert len(set(counts)) >= undamaged.info.rows[table]


@pytest.mark.parametrize(
    ("make", "format"),
    [
        (speedscope, "speedscope"),
        (lambda: speedscope(events=True), "speedscope"),
        (cpuprofile, "cpuprofile"),
        (session, "pyinstrument"),
    ],
)
def test_a_profile_that_is_cut_off_keeps_its_first_samples_as_they_are(
    make: Callable[[], bytes], format: str, tmp_path: Path
) -> None:
    data = make()
    undamaged = stacks(imported(written(tmp_path, data), started_at_ns=NOW_NS))
    seen = set()
    refused: list[str] = []
    for end in range(len(data) // 10, len(data), len(data) // 61):
        try:
            writer = keeping(written(tmp_path, data[:end]), format)
        except InputError as error:
            refused.append(error.message)
            continue
        found = stacks(writer)
        assert any(f"byte {end}" in note or "byte" in note for note in writer.info.notes)
        assert any(loss.what == "damaged record" for loss in writer.info.lost)
        # Every row is one of the undamaged file, the length of the very last apart.
        rows = ["ts_ns", "stack", "count"]
        assert found.join(undamaged, on=rows, how="anti", nulls_equal=True).height == 0
        assert found.height <= undamaged.height
        seen.add(found.height)
    assert all("kept" in message or "nothing in it" in message for message in refused)
    assert len(seen) > 8
    assert max(seen) > undamaged.height * 0.8


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("frames_first", [True, False])
def test_speedscope_keeps_other_threads_and_frames_after_a_damage(
    seed: int, frames_first: bool, tmp_path: Path
) -> None:
    data = speedscope(frames_first=frames_first)
    undamaged = stacks(imported(written(tmp_path, data), started_at_ns=NOW_NS))
    begin, end = data.index(b'"thread 2"'), data.index(b'"thread 3"')
    at = random.Random(seed).randrange(begin + 100, end - 1200)
    damaged = data[:at] + b'}"\x00[' + data[at + 4 :]
    with pytest.raises(InputError, match="not a speedscope profile"):
        imported(written(tmp_path, damaged), started_at_ns=NOW_NS)
    found = stacks(keeping(written(tmp_path, damaged)))
    assert 600 <= found.height < 900
    assert found.join(undamaged, on=found.columns, how="anti", nulls_equal=True).height == 0


def test_frames_that_are_lost_are_said(tmp_path: Path) -> None:
    data = speedscope(frames_first=False)
    with pytest.raises(InputError, match="frames, which come last, are not there"):
        keeping(written(tmp_path, data[: data.index(b'"shared"')]))
    data = cpuprofile()
    with pytest.raises(InputError, match="times of its samples, which come last"):
        keeping(written(tmp_path, data[: data.index(b'"timeDeltas"')]))


def test_v8_profile_with_a_damage_in_its_samples_keeps_those_before(tmp_path: Path) -> None:
    data = cpuprofile()
    undamaged = stacks(imported(written(tmp_path, data), started_at_ns=NOW_NS))
    begin = data.index(b'"samples"')
    at = data.index(b",", begin + 800)
    found = stacks(keeping(written(tmp_path, data[:at] + b"#" + data[at + 1 :])))
    assert 150 < found.height < 250
    whole, last = found[:-1], found[-1]
    assert whole.equals(undamaged[: whole.height])
    assert last["duration_ns"].item() == 0  # how long it took is not known


def test_a_tree_that_is_cut_off_gives_no_callee_to_its_caller(tmp_path: Path) -> None:
    data = (SAMPLES / "pyinstrument.json").read_bytes()
    undamaged = stacks(imported(SAMPLES / "pyinstrument.json"))
    seen = set()
    for end in range(1, len(data), 23):
        try:
            found = stacks(keeping(written(tmp_path, data[:end]), "pyinstrument"))
        except InputError:
            continue
        assert found.join(undamaged, on=found.columns, how="anti", nulls_equal=True).height == 0
        seen.add(found.height)
    assert len(seen) >= 2


@pytest.mark.parametrize("seed", range(8))
def test_chrome_events_after_a_damage_are_kept(seed: int, tmp_path: Path) -> None:
    data = events()
    undamaged = imported(written(tmp_path, data), started_at_ns=NOW_NS).table("spans")
    at = random.Random(seed).randrange(500, len(data) - 500)
    damage = (b'"', b"}", b"{", b"[[[")[seed % 4]
    damaged = data[:at] + damage + data[at + len(damage) :]
    if damaged == data:
        return
    found = keeping(written(tmp_path, damaged), "chrome-trace").table("spans")
    columns = ["name", "start_ns", "service"]
    assert found.height >= undamaged.height - 3
    assert found.join(undamaged, on=columns, how="anti").height <= 1


def test_what_gzip_gave_before_its_checksum_is_kept(tmp_path: Path) -> None:
    data = bytearray((SAMPLES / "go.pprof").read_bytes())
    undamaged = imported(SAMPLES / "go.pprof").table("samples")
    data[-6] ^= 0xFF  # of the checksum
    with pytest.raises(InputError, match="damaged gzip"):
        imported(written(tmp_path, bytes(data)))
    writer = keeping(written(tmp_path, bytes(data)))
    assert writer.table("samples").height == undamaged.height
    assert any("damaged gzip" in note for note in writer.info.notes)


def test_json_in_gzip_that_is_cut_off_keeps_its_spans(tmp_path: Path) -> None:
    plain = (SAMPLES / "otlp.json").read_bytes()
    data = gzip.compress(plain)
    whole = imported(SAMPLES / "otlp.json").info.rows["spans"]
    assert keeping(written(tmp_path, data[:-9])).info.rows["spans"] == whole
    assert keeping(written(tmp_path, data[: len(data) * 9 // 10])).info.rows["spans"] >= 1


def test_pprof_without_one_name_keeps_its_samples(tmp_path: Path) -> None:
    data = gzip.decompress((SAMPLES / "go.pprof").read_bytes())
    whole = imported(SAMPLES / "go.pprof").info.rows["samples"]
    at = data.index(b"main.")
    damaged = data[:at] + b"\xff" + data[at + 1 :]
    with pytest.raises(InputError, match="not a pprof profile"):
        imported(written(tmp_path, damaged))
    writer = keeping(written(tmp_path, damaged))
    assert writer.info.rows["samples"] == whole
    assert "(damaged)" in writer.table("frames")["function"].to_list()
    with pytest.raises(InputError, match="nothing"):
        keeping(written(tmp_path, data[:60]), "pprof")
    with pytest.raises(InputError, match="its names, which come last, are not there"):
        keeping(written(tmp_path, data[:20]), "pprof")  # what is measured, and no word of it


def test_metrics_of_a_damaged_otlp_document_are_kept(tmp_path: Path) -> None:
    def metric(number: int) -> dict[str, Any]:
        point = {"timeUnixNano": str(NOW_NS + number), "asDouble": number / 2, "attributes": []}
        found: dict[str, Any] = {"name": f"m{number}", "description": 'a "{" b', "unit": "By"}
        if number % 2:
            sums = {"dataPoints": [point], "aggregationTemporality": 2, "isMonotonic": True}
            return found | {"sum": sums}
        return found | {"gauge": {"dataPoints": [point]}}

    name = {"key": "service.name", "value": {"stringValue": "svc"}}
    document = {
        "resourceMetrics": [
            {
                "resource": {"attributes": [name]},
                "scopeMetrics": [
                    {"scope": {"name": "lib"}, "metrics": [metric(n) for n in range(200)]}
                ],
            }
        ]
    }
    data = json.dumps(document).encode()
    undamaged = imported(written(tmp_path, data)).table("metrics")
    for at in (data.index(b'"m77"'), data.index(b'"dataPoints"', len(data) // 2)):
        damaged = data[:at] + b'"}"#' + data[at + 4 :]
        writer = keeping(written(tmp_path, damaged), "otlp-json")
        found = writer.table("metrics")
        assert found.height == undamaged.height - 1
        assert found.join(undamaged, on=found.columns, how="anti", nulls_equal=True).height == 0
        assert any("damaged" in note for note in writer.info.notes)


def damage_until_it_is_seen(path: Path, mapping: mapped.Mapping) -> None:
    """Damage a file here, or there: Polars checks no checksums, so that some go unseen."""
    data = path.read_bytes()
    for begin in range(len(data) // 3, len(data) * 2 // 3, 3000):
        path.write_bytes(data[:begin] + b"\xff" * 3000 + data[begin + 3000 :])
        imported(path, mapping=mapping)


def test_parquet_with_a_damaged_piece_keeps_the_others(tmp_path: Path) -> None:
    rows = 40_000
    path = tmp_path / "spans.parquet"
    drawn = random.Random(2)
    frame = pl.DataFrame({"n": range(1, rows + 1)}).select(
        Trace="n",
        Span="n",
        Name=pl.Series([drawn.randbytes(9).hex() for _ in range(rows)]),
        Start=pl.col("n") + NOW_NS // 10**6,
    )
    frame.write_parquet(path, row_group_size=10_000, compression="zstd")
    mapping = mapped.parse("trace_id=Trace,span_id=Span,name=Name,start_ns=Start:ms")
    undamaged = imported(path, mapping=mapping).table("spans")
    data = path.read_bytes()
    with pytest.raises(InputError, match="cannot be read"):
        damage_until_it_is_seen(path, mapping)
    writer = imported(path, mapping=mapping, keep_going=True)
    found = writer.table("spans")
    assert rows - 20_000 <= found.height < rows
    assert found.join(undamaged, on=["span_id", "start_ns"], how="anti").height == 0
    assert any(", rows " in note for note in writer.info.notes)
    path.write_bytes(data[:-100])
    with pytest.raises(InputError, match="described at its end"):
        imported(path, mapping=mapping, keep_going=True)


def test_a_v8_profile_that_begins_and_has_no_sample_is_refused(tmp_path: Path) -> None:
    begin = {"name": "Profile", "ph": "P", "pid": 1, "tid": 1, "ts": 5, "id": "0x1"}
    event = begin | {"args": {"data": {"startTime": 5}}}
    with pytest.raises(InputError, match="nothing in it"):
        imported(written(tmp_path, json.dumps({"traceEvents": [event]}).encode()))


def twin(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("seed", range(200))
def test_the_beginning_of_any_text_is_json(seed: int) -> None:
    drawn = random.Random(seed)
    document = {"a": [1, -2.5e3, {"b": 'x\\"y', "c": [True, None, []]}], "d": {}, "e": ["", 10]}
    text = bytearray(json.dumps(document, indent=drawn.choice([None, 1])).encode())
    assert json_prefix.beginning(bytes(text), lambda _: True).whole
    for _ in range(drawn.randrange(1, 3)):
        text[drawn.randrange(len(text))] = drawn.choice(b'"{}[],:x1\\\n')
    data = bytes(text)[: drawn.randrange(1, len(text) + 1)]
    found = json_prefix.beginning(data, lambda _: True)
    if found.whole:
        assert twin(found.text.decode())
        assert data.startswith(found.text)
    else:
        assert not found.text or twin(found.text.decode())
        assert not twin(data.decode())
