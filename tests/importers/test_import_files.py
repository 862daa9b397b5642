from __future__ import annotations

import gzip
import json
import pkgutil
import random
import re
import zlib
from pathlib import Path

import polars as pl
import pytest

import perfkit.importers
from perfkit.analysis.spans.parents import drop_repeats
from perfkit.analysis.spans.recorded import Recorded
from perfkit.capture import Capture, CaptureWriter
from perfkit.errors import InputError, UnknownFormat, UsageError
from perfkit.importers import IMPORTERS, base, compression, detect, import_files, mapped
from tests.importers.memory import MemoryWriter, imported

SAMPLES = Path(__file__).resolve().parent / "samples"


NO_FORMATS = {
    *(
        "archives",
        "base",
        "beginnings",
        "compression",
        "inputs",
        "json_stream",
        "load_tests",
        "mojo",
        "rows",
    ),
    *("gateway_tables", "mapped", "repeats", "postgresql", "chrome_profile", "chrome_flows"),
    *("postgresql_entries", "postgresql_messages", "column_files", "chrome_events"),
    *("beginnings", "id_columns", "jaeger_document", "jaeger_spans", "places", "not_read"),
    *("tables", "otlp_salvage", "otlp_answers", "json_prefix", "msgpack_prefix", "sentry_profile"),
}


def test_every_module_of_the_package_is_listed() -> None:
    modules = {module.name for module in pkgutil.iter_modules(perfkit.importers.__path__)}
    listed = {importer.__name__.rsplit(".", 1)[1] for importer in IMPORTERS}  # type: ignore[attr-defined]
    assert modules == listed | NO_FORMATS
    assert len({importer.NAME for importer in IMPORTERS}) == len(IMPORTERS)


def test_every_format_has_a_sample_that_only_it_recognises(samples: dict[str, list[Path]]) -> None:
    assert set(samples) == {importer.NAME for importer in IMPORTERS}
    for name, paths in samples.items():
        for path in paths:
            head = base.Source(path).head()
            assert [i.NAME for i in IMPORTERS if i.sniff(head, path)] == [name]


@pytest.mark.parametrize("name", [i.NAME for i in IMPORTERS if i.NAME != "mcp-gateway-db"])
def test_gzip_is_opened_transparently(
    name: str, samples: dict[str, list[Path]], tmp_path: Path
) -> None:
    for path in samples[name]:
        packed = tmp_path / path.name  # the name says nothing of the compression
        # Several members, as `cat a.gz b.gz` makes them.
        data = base.Source(path).read()
        packed.write_bytes(gzip.compress(data[:100]) + gzip.compress(data[100:]) + b"\0\0")
        plain, unpacked = (
            imported(path, started_at_ns=10**18),
            imported(packed, started_at_ns=10**18),
        )
        assert plain.info.rows == unpacked.info.rows
        for table in plain.info.rows:
            if name != "request-records":  # their made-up ids contain the file's name
                assert plain.table(table).equals(unpacked.table(table))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"HCAT" + bytes(100), "binary format"),
        (b"TACH" + bytes(100), "binary format"),
        # As Python 3.15 documents them.
        (
            b'{"type":"meta","v":1,"run_id":"ab","sample_interval_usec":1000,"mode":"wall"}\n',
            "JSON lines",
        ),
        (
            b'{"meta": {"interval": 1.0, "preprocessedProfileVersion": 48}, "threads": []}',
            "Firefox",
        ),
    ],
)
def test_cpythons_other_profiles_say_what_to_do(content: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.bin"
    path.write_bytes(content)
    with pytest.raises(UnknownFormat, match=what) as caught:
        imported(path)
    assert "profiling.sampling" in str(caught.value)
    assert "replay --collapsed" in str(caught.value.hint)


def test_a_compressed_database_says_what_to_do(gateway: Path, tmp_path: Path) -> None:
    packed = tmp_path / "gateway.db.gz"
    packed.write_bytes(gzip.compress(gateway.read_bytes()))
    with pytest.raises(InputError, match="decompress it"):
        imported(packed)


def test_a_decompression_bomb_is_refused_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "MAX_RATIO_FROM_BYTES", 4 << 20)
    bomb = tmp_path / "bomb.gz"
    packer = zlib.compressobj(wbits=31)
    with bomb.open("wb") as file:
        file.write(packer.compress(b'{"resourceSpans":['))
        for _ in range(16):
            file.write(packer.compress(b" " * (1 << 20)))
        file.write(packer.flush())
    taken: list[int] = []
    with pytest.raises(InputError, match="decompression bomb"):
        taken.extend(len(chunk) for chunk in base.Source(bomb).chunks())
    assert sum(taken) <= compression.MAX_RATIO_FROM_BYTES + (2 << 20)
    with pytest.raises(InputError, match="decompression bomb"):
        imported(bomb)


def test_what_is_compressed_twice_is_read_and_counts_once(tmp_path: Path) -> None:
    profile = SAMPLES / "go.pprof"  # gzip by itself, as pprof has it
    packed = tmp_path / "go.pprof.gz"
    packed.write_bytes(gzip.compress(profile.read_bytes()))
    once = imported(profile)
    assert imported(packed).table("samples").equals(once.table("samples"))
    assert imported(profile, packed).info.rows == once.info.rows
    packed.write_bytes(gzip.compress(gzip.compress(gzip.compress(profile.read_bytes()))))
    with pytest.raises(InputError, match="more than 3 times"):
        imported(packed)


def test_a_bomb_within_a_bomb_is_refused_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "MAX_RATIO_FROM_BYTES", 1 << 20)
    bomb = tmp_path / "bomb.gz"
    spaces = random.Random(1).randbytes(1 << 10) * (2 << 10)  # 2 MiB in 12 kB, which shrink again
    bomb.write_bytes(gzip.compress(gzip.compress(spaces)))
    size = bomb.stat().st_size
    assert len(gzip.compress(spaces)) * compression.MAX_RATIO > len(spaces) > 200 * size
    with pytest.raises(InputError, match="decompression bomb"):
        list(base.Source(bomb).chunks())


@pytest.mark.parametrize("cut", [3, 12, 40, -9, -1])
def test_a_gzip_that_is_cut_off_says_so(cut: int, tmp_path: Path) -> None:
    packed = tmp_path / "traces.json.gz"
    packed.write_bytes(gzip.compress((SAMPLES / "otlp.json").read_bytes())[:cut])
    with pytest.raises(InputError, match=r"cut off|not recognised|empty") as caught:
        imported(packed, format="otlp-json")
    assert str(packed) in str(caught.value)


def test_a_directory_is_read_whole_and_what_is_unknown_in_it_is_counted(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a.json").write_bytes((SAMPLES / "jaeger.json").read_bytes())
    (tmp_path / "b.pb").write_bytes((SAMPLES / "otlp.pb").read_bytes())
    (tmp_path / "README").write_text("Some words.\n")
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "old.perfkit").mkdir()
    (tmp_path / "old.perfkit" / "capture.json").write_text("{}")
    writer = imported(tmp_path)
    assert writer.info.rows["spans"] == 5
    assert [source["file"] for source in writer.info.sources] == ["b.pb", "a.json"]
    assert writer.lost() == {"its format is not recognised": 1}
    assert "not imported, its format is not recognised: README" in writer.info.notes


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("nginx.log", b"127.0.0.1", b"127.0.0.2"),
        ("k6.json", b"http://", b"https://"),
        ("jmeter.jtl", b"Users 1-", b"Users 2-"),
        ("request-records.jsonl", b'"path": "/', b'"path": "/v2/'),
    ],
)
def test_files_of_two_machines_with_one_name_are_no_copies(
    name: str, one: bytes, other: bytes, tmp_path: Path
) -> None:
    data = (SAMPLES / name).read_bytes()
    assert one in data
    path = tmp_path / name
    path.write_bytes(data.replace(one, other))
    spans = imported(SAMPLES / name, path).table("spans")
    ids = spans.select("trace_hi", "trace_lo", "span_id")
    assert ids.unique().height == spans.height


def test_a_file_that_is_given_twice_is_read_once(tmp_path: Path) -> None:
    copy = tmp_path / "jaeger.json"
    copy.write_bytes((SAMPLES / "jaeger.json").read_bytes())
    link = tmp_path / "link.json"
    link.symlink_to(copy)
    assert imported(copy, tmp_path, copy, link).info.rows["spans"] == 3


def test_errors_name_the_file(tmp_path: Path) -> None:
    text = tmp_path / "words.txt"
    text.write_text("Nothing that anybody measured.\n")
    with pytest.raises(UnknownFormat, match=r"words\.txt: its format is not recognised") as caught:
        detect(base.Source(text))
    assert caught.value.hint is not None
    assert all(importer.NAME in caught.value.hint for importer in IMPORTERS)
    with pytest.raises(InputError, match=r"absent\.json: no such file"):
        imported(tmp_path / "absent.json")
    with pytest.raises(UsageError, match="no format is called xml"):
        imported(text, format="xml")
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    with pytest.raises(UnknownFormat, match="empty: empty file"):
        imported(empty)
    for importer in IMPORTERS:
        with pytest.raises(InputError, match=r"words\.txt"):
            imported(text, format=importer.NAME)


def test_files_without_rows_are_an_error_that_says_why(tmp_path: Path) -> None:
    path = tmp_path / "traces.json"
    path.write_text('{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"x"}]}]}]}')
    with pytest.raises(InputError, match=r"nothing in it .*1 rejected: span without ids"):
        imported(path)


def test_nothing_of_this_machine_is_said_of_the_data(samples: dict[str, list[Path]]) -> None:
    info = imported(*samples["jaeger-json"]).info
    assert (info.host, info.cores, info.anchors) == ("", 0, {})


def test_lines_are_numbered_and_blank_ones_left_out(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"a\r\n\n  \nb" + b"x" * (3 << 20) + b"\nlast")
    found = list(base.Source(path).lines())
    assert [(number, line[:2], len(line)) for number, line in found] == [
        (1, b"a", 1),
        (4, b"bx", (3 << 20) + 1),
        (5, b"la", 4),
    ]


def test_progress_is_told_of_every_file(samples: dict[str, list[Path]]) -> None:
    told: list[tuple[str, float]] = []
    perfkit.importers.import_files(
        samples["otlp-json"],
        MemoryWriter(),
        progress=lambda name, share: told.append((name, share)),
    )
    assert {Path(name).name for name, _ in told} == {"otlp.json", "otlp-lines.jsonl"}
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)


def test_requests_that_may_be_recorded_twice_are_spoken_of(samples: dict[str, list[Path]]) -> None:
    once = imported(*samples["otlp-json"], *samples["otlp-protobuf"], *samples["psutil-jsonl"])
    assert not any("spans come from" in note for note in once.info.notes)
    twice = imported(*samples["otlp-json"], *samples["mcp-gateway-db"])
    assert any("OpenTelemetry and the gateway's database" in note for note in twice.info.notes)


@pytest.mark.parametrize("name", ["jaeger.json", "apache.log", "jmeter.jtl", "viztracer.json"])
def test_a_compressed_copy_of_spans_is_recognised_by_their_ids(name: str, tmp_path: Path) -> None:
    content = (SAMPLES / name).read_bytes()
    # Not quite the same, and neither begins with all of the other.
    (tmp_path / name).write_bytes(content + b"\n")
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content + b"\r\n"))
    once = imported(tmp_path / name, started_at_ns=10**18)
    assert not any("are there already" in note for note in once.info.notes)
    spans = once.info.rows["spans"]
    output = tmp_path / "twice.perfkit"
    with CaptureWriter(output) as writer:
        import_files([tmp_path / name, tmp_path / f"{name}.gz"], writer, started_at_ns=10**18)
    (note,) = [note for note in writer.info.notes if "are there already" in note]
    assert note.startswith(f"{spans} of {2 * spans} spans are there already")
    # The analysis means the same by a repeated span.
    kept = Recorded(Capture.open(output).table("spans"))
    drop_repeats(kept)
    assert kept.height == spans


AT_NS = 1_795_871_323_000_000_123


def in_otlp(number: int) -> dict[str, object]:
    begin = AT_NS + number * 1_234_567
    return {
        "traceId": f"{number + 1:032x}",
        "spanId": f"{number + 1:016x}",
        "name": "a",
        "kind": number % 3 + 1,
        "startTimeUnixNano": str(begin),
        "endTimeUnixNano": str(begin + 5_000_777),
        "events": [{"timeUnixNano": str(begin + 5), "name": "e"}],
    }


def in_jaeger(number: int) -> dict[str, object]:
    begin = AT_NS + number * 1_234_567
    return {
        "traceID": f"{number + 1:032x}",
        "spanID": f"{number + 1:016x}",
        "operationName": "a",
        "startTime": begin // 1000,
        "duration": 5000,
        "process": {"serviceName": "Shop"},
        "tags": [{"key": "span.kind", "value": ("internal", "server", "client")[number % 3]}],
        "logs": [{"timestamp": (begin + 5) // 1000, "fields": [{"key": "event", "value": "e"}]}],
    }


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_spans_that_come_with_coarser_times_too_are_kept_once(order: str, tmp_path: Path) -> None:
    name = {"key": "service.name", "value": {"stringValue": "Shop"}}
    scopes = [{"spans": [in_otlp(number) for number in range(9)]}]
    group = {"resource": {"attributes": [name]}, "scopeSpans": scopes}
    (tmp_path / "a").write_text(json.dumps({"resourceSpans": [group]}))
    spans = [in_jaeger(number) for number in range(12)]
    spans[2]["startTime"] += 2  # another call, by its time
    (tmp_path / "b").write_text(json.dumps({"data": [{"spans": [one]} for one in spans]}))
    writer = imported(*(tmp_path / file for file in order))
    found = writer.table("spans")
    assert found.height == 9 + 3 + 1
    assert found.filter(found["start_ns"] % 1000 != 0).height == 9
    assert writer.info.rows["span_events"] == 13
    assert any("8 of 21 spans came in another format too" in note for note in writer.info.notes)


def test_what_came_a_hundred_times_is_not_compared_with_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = {"key": "service.name", "value": {"stringValue": "Shop"}}
    group = {"resource": {"attributes": [name]}, "scopeSpans": [{"spans": [in_otlp(1)]}]}
    (tmp_path / "a").write_text(json.dumps({"resourceSpans": [group]}))
    for number in range(100):
        spans = [in_jaeger(1), in_jaeger(number + 2)]
        (tmp_path / f"b{number}").write_text(json.dumps({"data": [{"spans": spans}]}))
    heights: list[int] = []
    join = pl.DataFrame.join

    def counted(*args: object, **options: object) -> pl.DataFrame:
        joined: pl.DataFrame = join(*args, **options)
        heights.append(joined.height)
        return joined

    monkeypatch.setattr(pl.DataFrame, "join", counted)
    writer = imported(tmp_path)
    assert writer.info.rows["spans"] == 1 + 100
    assert writer.info.rows["span_events"] == 1 + 100
    assert max(heights) <= 201


def profile(folder: Path, *, exporter: str) -> Path:
    """Write a speedscope profile whose threads have numbers."""
    threads = [
        {"type": "sampled", "name": f"thread {number}", "unit": "nanoseconds", "startValue": 0,
         "endValue": 4, "samples": [[0], [0], [0, 1]], "weights": [1, 1, 2]}
        for number in (1, 2)
    ]  # fmt: skip
    path = folder / f"{exporter}.speedscope.json"
    shared = {"frames": [{"name": "a"}, {"name": "b"}]}
    path.write_text(json.dumps({"exporter": exporter, "profiles": threads, "shared": shared}))
    return path


@pytest.mark.parametrize("real", [False, True])
def test_samples_and_metrics_that_come_in_two_formats_count_once(
    real: bool, tmp_path: Path
) -> None:
    (tmp_path / "m.csv").write_text("t,name,v\n" + "".join(f"{n},a,{n % 2}\n" for n in range(9)))
    (tmp_path / "m.jsonl").write_text(
        "".join(json.dumps({"t": n, "name": "a", "v": n % 2}) + "\n" for n in range(12))
    )
    mapping = mapped.parse("ts_ns=t:s,name=name,value=v")
    for path in (tmp_path / "m.csv", tmp_path / "m.jsonl"):
        path.write_text(re.sub(r'(?m)^(\d+),|"t": (\d+)', later, path.read_text()))
    profiles = [profile(tmp_path, exporter=name) for name in ("one", "another")]
    files = [*profiles, tmp_path / "m.csv", tmp_path / "m.jsonl"]
    writer: CaptureWriter = MemoryWriter()
    if real:
        writer = CaptureWriter(tmp_path / "both.perfkit")
    with writer:
        import_files(files, writer, mapping=mapping, started_at_ns=10**18)
    assert writer.info.rows["samples"] == 6
    assert writer.info.rows["metrics"] == 12
    notes = [note for note in writer.info.notes if "each is kept once" in note]
    assert [note.split(" came")[0] for note in notes] == ["6 of 12 samples", "9 of 21 metrics"]
    if real:
        capture = Capture.open(tmp_path / "both.perfkit")
        assert capture.table("metrics").collect().height == 12
        assert capture.table("samples").collect().height == 6


def later(match: re.Match[str]) -> str:
    """Put the time of a row into this century."""
    if match[1] is not None:
        return f"{1_795_871_323 + int(match[1])},"
    return f'"t": {1_795_871_323 + int(match[2])}'


def test_samples_without_a_thread_are_never_taken_for_copies(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text(f"s,t\nmain;{name},1795871323\nmain,1795871323\n")
    mapping = mapped.parse("stack=s,ts_ns=t:s")
    writer = imported(tmp_path / "a.csv", tmp_path / "b.csv", mapping=mapping)
    assert writer.info.rows["samples"] == 4
