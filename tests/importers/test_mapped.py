"""Any table by a mapping: every file form gives the same rows, by hand-written ones."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.errors import InputError, UsageError
from perfkit.importers import mapped
from tests.importers.memory import MemoryWriter, imported

MS = 1_795_873_366_000
SPANS = pl.DataFrame(
    {
        "TraceID": ["a1b2", "a1b2", "request-7", "request-7", None],
        "SpanID": ["1f", "20", "root", "x", "5"],
        "Parent": [None, "1f", None, "root", None],
        "Name": ["GET /a", "db", "GET /b", "bad", "none"],
        "Svc": ["shop", "shop", "shop", None, "shop"],
        "Kind": ["SERVER", "SPAN_KIND_CLIENT", "odd", "client", "client"],
        "State": ["ok", "ERROR", "", "2xx", ""],
        "Start": [MS, MS + 1, MS + 5, -4, MS],
        "Took": [12.5, 3.25, 0.001, 1.0, 1.0],
    }
)
MAP = (
    "trace_id=TraceID,span_id=SpanID,parent_id=Parent,name=Name,service=Svc,kind=Kind,"
    "status=State,start_ns=Start:ms,duration_ns=Took:ms"
)


def of(path: Path, text: str) -> MemoryWriter:
    return imported(path, mapping=mapped.parse(text))


@pytest.mark.parametrize("form", ["csv", "semicolons", "jsonl", "parquet", "csv.gz", "jsonl.gz"])
def test_spans_of_every_form(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"spans.{form}"
    if form.startswith("jsonl"):
        data = SPANS.write_ndjson().encode()
    elif form == "parquet":
        SPANS.write_parquet(path)
        data = path.read_bytes()
    else:
        data = SPANS.write_csv(separator=";" if form == "semicolons" else ",").encode()
    path.write_bytes(gzip.compress(data) if form.endswith("gz") else data)
    writer = of(path, MAP)
    spans = writer.table("spans")
    assert spans.select("name", "service", "kind", "status", "start_ns", "duration_ns").rows() == [
        ("GET /a", "shop", "server", "ok", MS * 10**6, 12_500_000),
        ("db", "shop", "client", "error", (MS + 1) * 10**6, 3_250_000),
        ("GET /b", "shop", "unspecified", "unset", (MS + 5) * 10**6, 1000),
    ]
    assert spans["trace_lo"].to_list()[:2] == [0xA1B2] * 2
    assert spans["parent_id"].to_list() == [None, 0x1F, None]
    assert spans["adjusted_count"].to_list() == [1.0] * 3
    assert writer.lost() == {
        "span without ids": 1,
        "span without a plausible start time": 1,
    }


def test_a_status_that_is_no_known_word_is_said(tmp_path: Path) -> None:
    words = ["ok", "FAILED", "kaputt", "kaputt", "2", "", None, "STATUS_CODE_UNSET"]
    path = tmp_path / "spans.csv"
    pl.DataFrame(
        {
            "t": ["a1"] * len(words),
            "s": [f"{n + 1:x}" for n in range(len(words))],
            "begin": [MS] * len(words),
            "state": words,
        }
    ).write_csv(path)
    writer = of(path, "trace_id=t,span_id=s,status=state,start_ns=begin:ms")
    statuses = writer.table("spans")["status"].to_list()
    assert statuses == ["ok", "error", *["unset"] * 6]
    assert writer.lost() == {"not a known word, left unset": 3}
    assert any("'kaputt', '2' is not known" in note for note in writer.info.notes)


def test_a_failed_http_status_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "spans.csv"
    path.write_text(
        f"t,s,k,code,state,begin\n1,1,server,503,ok,{MS}\n1,2,server,404,,{MS}\n"
        f"1,3,client,404,,{MS}\n1,4,server,,error,{MS}\n1,5,server,200,ok,{MS}\n"
        f"1,6,server,500,kaputt,{MS}\n"
    )
    mapping = "trace_id=t,span_id=s,kind=k,http_status=code,status=state,start_ns=begin:ms"
    writer = of(path, mapping)
    statuses = writer.table("spans")["status"].to_list()
    assert statuses == ["error", "unset", "error", "error", "ok", "error"]
    assert not writer.lost()


def test_times_as_text_and_an_end_instead_of_a_length(tmp_path: Path) -> None:
    path = tmp_path / "spans.csv"
    path.write_text(
        "t,s,begin,end\n1,1,2026-11-28T13:42:46.5Z,2026-11-28T13:42:47Z\n"
        "1,2,2026-11-28T14:42:46+01:00,2026-11-28T14:42:46.25+01:00\n"
    )
    spans = of(path, "trace_id=t,span_id=s,start_ns=begin,end_ns=end").table("spans")
    assert spans.select("start_ns", "duration_ns").rows() == [
        (MS * 10**6 + 500_000_000, 500_000_000),
        (MS * 10**6, 250_000_000),
    ]


@pytest.mark.parametrize("keep_going", [False, True])
def test_numbers_of_a_spreadsheet_have_a_comma_where_columns_have_semicolons(
    keep_going: bool, tmp_path: Path
) -> None:
    path = tmp_path / "excel.csv"
    took = ("12,5", "3", " 0,001", "1.5", "1.234,5", "n/a", "")
    rows = [f"{n};{n};n{n},5;{MS};{length}" for n, length in enumerate(took, 1)]
    path.write_text("\ufeffTrace;Span;Name;Start;Took\r\n" + "\r\n".join(rows) + "\r\n", "utf-8")
    text = "trace_id=Trace,span_id=Span,name=Name,start_ns=Start:ms,duration_ns=Took:ms"
    writer = imported(path, mapping=mapped.parse(text), keep_going=keep_going)
    spans = writer.table("spans")
    found = [12_500_000, 3_000_000, 1000, 1_500_000, None, None, None]
    assert spans["duration_ns"].to_list() == found
    assert spans["name"][0] == "n1,5"
    assert writer.lost() == {"duration_ns is no number, left unknown": 2}
    metrics = of(path, "ts_ns=Start:ms,shop.took=Took").table("metrics")
    assert metrics["value"].to_list() == [12.5, 3.0, 0.001, 1.5]


def test_text_that_is_no_utf_8_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "excel.csv"
    path.write_bytes("trace,span,Größe,start\n1,1,ö,1795873366000\n".encode("cp1252"))
    with pytest.raises(InputError, match="utf-8") as error:
        of(path, "trace_id=trace,span_id=span,start_ns=start:ms")
    assert "iconv" in (error.value.hint or "")


def test_a_wrong_unit_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "spans.csv"
    path.write_bytes(SPANS.write_csv().encode())
    with pytest.raises(InputError, match="not plausible") as caught:
        of(path, MAP.replace("Start:ms", "Start:us"))
    assert caught.value.hint is not None
    assert "start_ns=Start:ms" in caught.value.hint


def test_samples_and_metrics(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"at,where,n\n{MS},main;work (a.py:3),2\n{MS + 1},,1\n{MS + 2},main,x\n")
    writer = of(path, "stack=where,ts_ns=at:ms,count=n")
    assert writer.table("samples").select("ts_ns", "count").rows() == [(MS * 10**6, 2)]
    assert sorted(writer.table("frames")["function"]) == ["main", "work"]
    assert sum(writer.lost().values()) == 2
    path.write_text(f"at,cpu,mem\n{MS},0.5,100\n{MS},,nan\n")
    writer = of(path, "ts_ns=at:ms,process.cpu.utilization=cpu,process.memory.usage=mem")
    assert sorted(writer.table("metrics").select("name", "value").rows()) == [
        ("process.cpu.utilization", 0.5),
        ("process.memory.usage", 100.0),
    ]
    path.write_text(f"at,what,v\n{MS},queue,5\n")
    [row] = of(path, "ts_ns=at:ms,name=what,value=v").table("metrics").to_dicts()
    assert (row["name"], row["value"], row["kind"], row["unit"]) == ("queue", 5.0, "gauge", "1")


def test_values_of_metrics_have_the_unit_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"at,cpu,rss,took,job:ms\n{MS},50,2,3,4\n")
    wanted = "process.cpu.utilization=cpu:%,process.memory.usage=rss:MiB,a.b=took:ms,c.d=job:ms:1"
    writer = of(path, f"ts_ns=at:ms,{wanted}")
    assert sorted(writer.table("metrics").select("name", "value", "unit").rows()) == [
        ("a.b", 0.003, "s"),
        ("c.d", 4.0, "1"),
        ("process.cpu.utilization", 0.5, "1"),
        ("process.memory.usage", 2.0 * (1 << 20), "By"),
    ]
    assert not any("share of 1" in note for note in writer.info.notes)
    path.write_text(f"at,what,v\n{MS},queue,5\n")
    [row] = of(path, "ts_ns=at:ms,name=what,value=v:ms").table("metrics").to_dicts()
    assert (row["value"], row["unit"]) == (0.005, "s")


def test_a_share_beyond_one_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"at,cpu,rss\n{MS},50,7\n")
    writer = of(path, "ts_ns=at:ms,process.cpu.utilization=cpu,process.memory.usage=rss")
    assert (
        "x.csv: cpu is taken as a share of 1, as process.cpu.utilization is, and goes beyond 1; "
        "if it is per cent, say process.cpu.utilization=cpu:%" in writer.info.notes
    )
    assert set(writer.table("metrics")["unit"]) == {"1", "By"}
    path.write_text(f"at,cpu,rss\n{MS},0.5,7\n")
    writer = of(path, "ts_ns=at:ms,process.cpu.utilization=cpu,process.memory.usage=rss")
    assert not any("share of 1" in note for note in writer.info.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trace_id", "is not TARGET=COLUMN"),
        ("trace_id=a,span_id=b", "spans need start_ns"),
        ("trace_id=a,span_id=b,start_ns=c:h", "no unit 'h'"),
        ("trace_id=a,span_id=b,start_ns=c,colour=d", "colour is nothing that spans have"),
        ("trace_id=a,trace_id=b,span_id=b,start_ns=c", "trace_id is there twice"),
        ("name=a", "neither spans"),
        ("ts_ns=a,name=b,value=c:ms,unit=d", "a unit behind the column of value"),
    ],
)
def test_mappings_that_are_wrong_say_why(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        mapped.parse(text)


def test_a_mapping_leaves_files_without_its_columns_alone(tmp_path: Path) -> None:
    samples = Path(__file__).resolve().parent / "samples"
    (tmp_path / "a.csv").write_bytes(SPANS.write_csv().encode())
    (tmp_path / "b.json").write_bytes((samples / "jaeger.json").read_bytes())
    writer = of(tmp_path, MAP)
    assert [source["format"] for source in writer.info.sources] == ["mapped", "jaeger-json"]
    assert writer.info.rows["spans"] == 3 + 3


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize("keep_going", [False, True])
def test_a_part_of_a_column_that_is_an_object_has_its_name_behind_a_point(
    form: str, keep_going: bool, tmp_path: Path
) -> None:
    rows = [
        {"_source": {"trace": {"id": "a"}, "span": {"id": "1"}, "at": MS, "took": 5}, "tier": "x"},
        {
            "_source": {"trace": {"id": "a"}, "span": {"id": "2"}, "at": MS, "took": None},
            "tier": "",
        },
    ]
    frame, path = pl.DataFrame(rows), tmp_path / "in"
    frame.write_parquet(path) if form == "parquet" else frame.write_ndjson(path)
    text = (
        "trace_id=_source.trace.id,span_id=_source.span.id,start_ns=_source.at:ms,"
        "duration_ns=_source.took:ms"
    )
    writer = imported(path, mapping=mapped.parse(text), keep_going=keep_going)
    assert writer.table("spans")["duration_ns"].to_list() == [5_000_000, None]
    assert [note.count("_source") for note in writer.info.notes] == [0]  # only tier is left out
    with pytest.raises(InputError, match="no column _source.name" if form == "parquet" else "in"):
        imported(path, mapping=mapped.parse(f"{text},name=_source.name"), keep_going=False)


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(SPANS.write_csv().encode())
    with pytest.raises(InputError, match=r"a\.csv: no column Begin") as caught:
        of(path, MAP.replace("Start", "Begin"))
    assert caught.value.hint is not None
    assert "it has: TraceID, SpanID" in caught.value.hint


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    SPANS.write_parquet(tmp_path / "good.parquet")
    data = (tmp_path / "good.parquet").read_bytes()
    path = tmp_path / "bad.parquet"
    for end in range(4, len(data), 97):
        flipped = bytearray(data)
        flipped[end] ^= 0xFF
        for content in (data[:end], bytes(flipped)):
            path.write_bytes(content)
            try:
                of(path, MAP)
            except InputError as error:
                text = str(error)
            else:
                text = "bad.parquet"
            assert "bad.parquet" in text


def test_the_shop_of_the_fault_data(shared_data: Path) -> None:
    path = shared_data / "rca" / "trainticket-2023-01-29.parquet"
    same = ("trace_id", "span_id", "parent_id", "name", "service", "start_ns", "end_ns")
    spans = of(path, ",".join(f"{name}={name}" for name in same)).table("spans")
    # Its span ids are numbered from 0, which is no id.
    expected = pl.read_parquet(path).filter(pl.col("span_id") > 0)
    assert spans.height == expected.height
    assert spans["start_ns"].sum() == expected["start_ns"].sum()
    assert spans.n_unique(["trace_hi", "trace_lo"]) == expected["trace_id"].n_unique()
    assert spans["parent_id"].null_count() == expected["parent_id"].fill_null(0).eq(0).sum()


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_target_with_a_dot_is_an_attribute_of_spans(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"spans.{form}"
    frame = pl.DataFrame(
        {
            "t": ["a1"] * 4,
            "s": ["1", "2", "3", "4"],
            "begin": [MS] * 4,
            "Tenant": ['a "b"\\', "é,{}", None, "d"],
            "Rows": [1, 20, None, 3],
            "Share": [0.5, 1e300, None, 2.0],
            "Other": ["x"] * 4,
        }
    )
    {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[form](
        path
    )
    writer = of(
        path, "trace_id=t,span_id=s,start_ns=begin:ms,x.tenant=Tenant,x.rows=Rows,x.share=Share"
    )
    found = [
        None if text is None else json.loads(text)
        for text in writer.table("spans")["attributes"].to_list()
    ]
    number = str if form == "csv" else lambda value: value
    assert found == [
        {"x.rows": number(1), "x.share": number(0.5), "x.tenant": 'a "b"\\'},
        {"x.rows": number(20), "x.share": number(1e300), "x.tenant": "é,{}"},
        None,
        {"x.rows": number(3), "x.share": number(2.0), "x.tenant": "d"},
    ]
    assert any("left out: 'Other'; in spans" in note for note in writer.info.notes)


@given(
    values=st.lists(
        st.tuples(
            st.none() | st.text(),
            st.none() | st.floats(),
            st.none() | st.lists(st.text(max_size=3), max_size=3),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_attributes_of_columns_are_what_json_says(values: list[tuple[Any, ...]]) -> None:
    schema = {"x.text": pl.String, "x.number": pl.Float64, "x.list": pl.List(pl.String)}
    batch = pl.DataFrame(values, schema=schema, orient="row")
    mapping = mapped.parse(
        "trace_id=t,span_id=s,start_ns=b," + "".join(f"{k}=c," for k in schema)[:-1]
    )
    found = batch.select(mapped._attributes(mapping, batch))["attributes"].to_list()
    wanted = [
        {
            key: value
            for key, value in zip(schema, row, strict=True)
            if value is not None and not (isinstance(value, float) and not math.isfinite(value))
        }
        for row in values
    ]
    assert [{} if text is None else json.loads(text) for text in found] == wanted


def test_single_attributes_beside_whole_objects_are_refused() -> None:
    with pytest.raises(UsageError, match=r"x\.tenant beside attributes"):
        mapped.parse("trace_id=t,span_id=s,start_ns=b:ms,x.tenant=T,attributes=A")
