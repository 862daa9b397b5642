"""The exporters, by what their formats say: golden files, sums, round trips, hostile names."""

from __future__ import annotations

import gzip
import io
import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import openpyxl
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from perfkit import exporters
from perfkit.analysis.filters import Filters
from perfkit.analysis.session import Tables
from perfkit.capture import Capture, CaptureWriter
from perfkit.cli.export import FORMATS, VIEWS
from perfkit.errors import InputError, UsageError
from perfkit.exporters import views
from perfkit.exporters.base import Source
from perfkit.exporters.pprof_schema import Profile
from perfkit.importers import import_files
from perfkit.model import BY_NAME
from tests.analysis.build import analyse
from tests.exporters import shop

GOLDEN = Path(__file__).parent / "golden"
FOLDER = Path(exporters.__file__).parent
HELPERS = {"__init__", "base", "views", "threads", "flat", "pprof_schema"}
HELPERS |= {"otlp_values", "otlp_metrics"}


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shop.write(tmp_path_factory.mktemp("export") / "shop.perfkit")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shop.write(tmp_path_factory.mktemp("export") / "hostile.perfkit", hostile=True)


def export(path: Path, form: str, *chosen: str, view: str | None = None) -> bytes:
    source = Source("shop", shop.tables(path), view, chosen)
    return b"".join(exporters.by_name(form).export(source))


def test_every_module_is_registered_and_offered() -> None:
    modules = {path.stem for path in FOLDER.glob("*.py")} - HELPERS
    assert {one.__name__.rsplit(".", 1)[1] for one in exporters.EXPORTERS} == modules  # type: ignore[attr-defined]
    assert tuple(one.NAME for one in exporters.EXPORTERS) == FORMATS
    assert tuple(views.VIEWS) == VIEWS


@pytest.mark.parametrize("form", ["speedscope", "collapsed", "chrome", "otlp-json", "svg"])
def test_golden_file(capture: Path, form: str) -> None:
    """`PERFKIT_GOLDEN=1` writes them anew: look at the difference before you keep it."""
    file = GOLDEN / f"shop{exporters.by_name(form).SUFFIX}"
    written = shop.scrubbed(export(capture, form))
    if os.environ.get("PERFKIT_GOLDEN"):
        file.write_text(written, encoding="utf-8")
    assert written == file.read_text(encoding="utf-8")


def test_views_weigh_what_they_say(capture: Path) -> None:
    own = {
        name: {
            (label, own // shop.MS)
            for label, own in zip(tree.names, tree.own.tolist(), strict=True)
            if own
        }
        for name in VIEWS
        if (tree := views.tree(shop.tables(capture), name)) is not None
    }
    assert own["running"] == {("work", 40), ("main", 40)}
    assert own["code"] == {("work", 40), ("wait", 50), ("main", 40)}
    # Calls a (10 to 60) and b (20 to 70) overlap: the one that ends last is on the critical path,
    # and before it the request itself, because a had not ended when b began.
    assert own["critical-path"] == {
        ("POST /buy", 30), ("call b", 50), ("query", 20)
    }  # fmt: skip
    assert own["requests"] == {("POST /buy", 20), ("call a", 50), ("call b", 50), ("query", 20)}


def test_the_critical_path_adds_up_to_the_request(capture: Path) -> None:
    tree = views.tree(shop.tables(capture), "critical-path")
    assert tree is not None
    assert tree.own.sum() == 100 * shop.MS
    assert tree.totals()[tree.parents < 0].sum() == 100 * shop.MS


def test_collapsed_is_read_back(capture: Path, tmp_path: Path) -> None:
    back = read_back(export(capture, "collapsed", view="code"), tmp_path)
    samples = back["samples"].select("stack_id", "count")
    expected = (
        shop.tables(capture)["samples"]
        .group_by("stack_id")
        .agg(count=pl.col("duration_ns").sum() // 1000)
    )
    assert_frame_equal(
        samples.collect().sort("stack_id"),
        expected.collect().sort("stack_id"),
        check_row_order=False,
    )


def read_back(content: bytes, folder: Path, name: str = "file") -> Tables:
    file = folder / name
    file.write_bytes(content)
    with CaptureWriter(folder / "back.perfkit") as writer:
        import_files([file], writer)
    return shop.tables(folder / "back.perfkit")


def test_otlp_is_read_back(capture: Path, tmp_path: Path) -> None:
    back, before = read_back(export(capture, "otlp-json"), tmp_path), shop.tables(capture)
    for name, order in (("spans", "span_id"), ("span_events", "ts_ns"), ("span_links", "span_id")):
        assert_frame_equal(*(comparable(one, name).sort(order) for one in (back, before)))
    order_of_metrics = ["name", "ts_ns", "value"]
    assert_frame_equal(
        *(comparable(one, "metrics").sort(order_of_metrics) for one in (back, before))
    )


def comparable(tables: Tables, name: str) -> pl.DataFrame:
    """JSON texts as sorted ones; what is not said and what is not so are the same."""
    frame = tables[name].collect()
    texts = [one for one in ("attributes", "resource") if one in frame.columns]
    return frame.with_columns(
        pl.Series(
            one,
            [
                json.dumps(_known(json.loads(text)), sort_keys=True)
                for text in frame[one].fill_null("{}")
            ],
        )
        for one in texts
    ).with_columns(
        *(pl.col(one).fill_null(False) for one in ("parent_inferred",) if one in frame.columns)
    )


# What an export adds where a capture has only the column: it says the same.
ADDED = ("http.route", "peer.service", "w3c.tracestate")


def _known(attributes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if key not in ADDED}


def test_a_sampled_span_says_what_it_stands_for(capture: Path) -> None:
    lines = shop.loads(export(capture, "otlp-json"))
    spans = [
        span
        for line in lines
        for group in line.get("resourceSpans", ())  # type: ignore[attr-defined]
        for scope in group["scopeSpans"]
        for span in scope["spans"]
    ]
    assert {span["spanId"][-1]: span.get("traceState") for span in spans} == {
        "1": None, "2": None, "3": None, "4": None, "5": "ot=th:c"
    }  # fmt: skip


def test_pprof_has_every_value_and_the_leaf_first(capture: Path) -> None:
    profile = Profile.FromString(gzip.decompress(export(capture, "pprof")))
    text = list(profile.string_table)
    assert text[0] == ""
    types = [(text[one.type], text[one.unit]) for one in profile.sample_type]
    assert types == [("samples", "count"), ("wall", "nanoseconds"), ("running", "nanoseconds")]
    assert text[profile.default_sample_type] == "running"
    functions = {one.id: text[one.name] for one in profile.function}
    places = {one.id: (functions[one.line[0].function_id], one.line[0].line)
              for one in profile.location}  # fmt: skip
    stacks = {
        tuple(places[one] for one in sample.location_id): list(sample.value)
        for sample in profile.sample
    }
    assert stacks == {
        (("main", 3),): [4, 40 * shop.MS, 40 * shop.MS],
        (("work", 9), ("handle", 10), ("main", 3)): [4, 40 * shop.MS, 40 * shop.MS],
        (("wait", 5), ("handle", 10), ("main", 3)): [5, 50 * shop.MS, 0],
    }
    assert (profile.time_nanos, profile.duration_nanos > 0) == (shop.T, True)
    assert export(capture, "pprof") == export(capture, "pprof")


def test_chrome_spans_of_a_lane_nest(capture: Path) -> None:
    document = json.loads(export(capture, "chrome"))
    slices = [event for event in document["traceEvents"] if event["ph"] == "X"]
    code = [event for event in slices if event["pid"] == 42]
    assert {(one["name"], one["tid"], one["ts"], one["dur"]) for one in code} == {
        ("main", 7, 0, 80_000), ("handle", 7, 0, 80_000), ("work", 7, 0, 30_000),
        ("wait", 7, 30_000, 50_000), ("main", 7, 100_000, 10_000), ("handle", 7, 100_000, 10_000),
        ("work", 7, 100_000, 10_000), ("main", 8, 5_000, 40_000),
    }  # fmt: skip
    slices = [event for event in slices if event["pid"] != 42]
    lanes: dict[Any, list[Any]] = {}
    for one in slices:
        lanes.setdefault((one["pid"], one["tid"]), []).append((one["ts"], one["ts"] + one["dur"]))
    for lane in lanes.values():
        for begin, end in lane:
            for other_begin, other_end in lane:
                apart = end <= other_begin or other_end <= begin
                within = begin <= other_begin and other_end <= end
                around = other_begin <= begin and end <= other_end
                assert apart or within or around
    assert {one["name"]: one["tid"] for one in slices if one["name"] != "GET /p"} == {
        "POST /buy": 1, "call a": 1, "query": 1, "call b": 2
    }  # fmt: skip
    assert document["otherData"]["origin_unix_ns"] == str(shop.T)


def test_csv_is_what_duckdb_reads(capture: Path, tmp_path: Path) -> None:
    import duckdb

    file = tmp_path / "spans.csv"
    file.write_bytes(export(capture, "csv", "spans"))
    rows = duckdb.sql(f"SELECT span_id, start_ns, name, adjusted_count FROM '{file}'").fetchall()
    expected = shop.tables(capture)["spans"].select("span_id", "start_ns", "name", "adjusted_count")
    assert rows == [(f"{row[0]:016x}", *row[1:]) for row in expected.collect().rows()]


def test_the_capture_itself_is_what_duckdb_reads(capture: Path) -> None:
    import duckdb

    (count,) = duckdb.sql(f"SELECT count(*) FROM '{capture}/samples/*.parquet'").fetchall()
    assert count == (5,)


@pytest.mark.parametrize("name", list(BY_NAME))
def test_every_captured_table_is_csv(capture: Path, name: str) -> None:
    back = pl.read_csv(io.BytesIO(export(capture, "csv", name)), infer_schema=False)
    assert back.columns == list(BY_NAME[name].schema)
    assert back.height == shop.tables(capture)[name].collect().height


def test_csv_wants_one_table(capture: Path) -> None:
    for chosen in ((), ("spans", "metrics")):
        with pytest.raises(UsageError, match="one table"):
            export(capture, "csv", *chosen)


def test_no_cell_of_a_sheet_runs(hostile: Path) -> None:
    written = export(hostile, "csv", "spans").decode()
    names = pl.read_csv(io.StringIO(written), infer_schema=False)["name"]
    assert names[0] == f"'{shop.HOSTILE}"
    book = openpyxl.load_workbook(io.BytesIO(export(hostile, "xlsx", "spans", "operations")))
    cells = [cell for sheet in book for row in sheet.iter_rows() for cell in row]
    assert any(str(cell.value).startswith("=cmd") for cell in cells)
    assert all(cell.data_type != "f" and cell.hyperlink is None for cell in cells)


def test_a_workbook_has_moments_ids_and_numbers(capture: Path) -> None:
    book = openpyxl.load_workbook(io.BytesIO(export(capture, "xlsx", "spans", "facts")))
    assert book.sheetnames == ["spans", "facts"]
    heads, first = list(book["spans"].values)[:2]
    row = dict(zip(heads, first, strict=True))
    assert row["span_id"] == f"{1:016x}"
    assert row["duration_ns"] == 100 * shop.MS
    assert row["start_utc"].isoformat() == "2026-11-23T06:46:35"
    assert row["http_status"] == 500
    assert row["db_rows"] is None
    assert len(openpyxl.load_workbook(io.BytesIO(export(capture, "xlsx"))).sheetnames) > 8


def test_hostile_names_stay_names(hostile: Path) -> None:
    svg = export(hostile, "svg", view="running")
    drawing = ET.fromstring(svg)
    assert not list(drawing.iter("{http://www.w3.org/2000/svg}script"))
    assert b"\x1b" not in svg
    assert "\u202e" not in svg.decode()
    for line in export(hostile, "collapsed", view="code").decode().splitlines():
        stack, weight = line.rsplit(" ", 1)
        assert int(weight) > 0
        assert len(stack.split(";")) <= 3
    names = [frame["name"] for frame in
             json.loads(export(hostile, "speedscope"))["shared"]["frames"]]  # fmt: skip
    assert shop.HOSTILE in names
    assert shop.HOSTILE in {
        event["name"] for event in json.loads(export(hostile, "chrome"))["traceEvents"]
    }


@pytest.mark.parametrize("form", ["speedscope", "collapsed", "pprof", "chrome", "otlp-json", "svg"])
def test_a_capture_without_anything_is_an_error(form: str) -> None:
    with pytest.raises(InputError, match="nothing to") as error:
        list(exporters.by_name(form).export(Source("empty", analyse([]))))
    assert error.value.hint


def test_counts_without_times_are_drawn_as_counts(tmp_path: Path) -> None:
    tables = read_back(b"main;work 3\nmain;rest 1\n", tmp_path)
    (collapsed,) = exporters.by_name("collapsed").export(Source("counts", tables))
    assert sorted(collapsed.splitlines()) == [b"main;rest 1", b"main;work 3"]
    drawn = b"".join(exporters.by_name("svg").export(Source("counts", tables)))
    assert b"4 samples" in drawn
    profile = Profile.FromString(
        gzip.decompress(b"".join(exporters.by_name("pprof").export(Source("counts", tables))))
    )
    assert sorted(list(sample.value) for sample in profile.sample) == [[1], [3]]


def test_filters_reach_the_spans_that_are_exported(capture: Path) -> None:
    from perfkit.cli.export import _Selected

    tables = Tables(Capture.open(capture), Filters(service="pay"))
    selected = _Selected(tables)
    assert selected["spans"].collect()["name"].to_list() == ["GET /p"]
    assert selected["span_links"].collect().height == 1
    assert selected["span_events"].collect().height == 0
    assert selected["samples"].collect().height == 0
