"""PostgreSQL's log in its shapes; that they say the same is tried with a real server's samples."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from perfkit.errors import InputError
from perfkit.formats import zones
from perfkit.importers import postgresql_messages
from tests.importers.memory import MemoryWriter, imported

SAMPLES = Path(__file__).resolve().parent / "samples"
AT = "2026-11-28 13:42:44.000 UTC"
END_NS = 1_795_873_364_000_000_000  # 2026-11-28 13:42:44


def of(tmp_path: Path, text: str, **options: object) -> MemoryWriter:
    path = tmp_path / "input"
    path.write_text(text)
    return imported(path, **options)


def entry(text: str, prefix: str = f"{AT} [7] ", severity: str = "LOG") -> str:
    return f"{prefix}{severity}:  {text}\n"


PREFIXES = {
    "%m [%p]": "2026-11-28 13:42:44.000 UTC [7] ",
    "%m [%p] %q%u@%d": "2026-11-28 13:42:44.000 UTC [7] ann@shop ",
    "%t:%r:%u@%d:[%p]:": "2026-11-28 13:42:44 UTC:10.0.0.1(55118):ann@shop:[7]:",
    "%t [%p]: [%l-1] user=%u,db=%d,app=%a,client=%h": "2026-11-28 13:42:44 UTC [7]: [2-1] "
    "user=ann,db=shop,app=my app,client=10.0.0.1 ",
    "%n [%p]": "1795873364.000 [7] ",
    "<%m %p %u %d>": "<2026-11-28 13:42:44.000 UTC 4711 ann shop>",
    "[%p] %m": "[7] 2026-11-28 13:42:44.000 UTC ",
    "%m|%u|%d|%p|": "2026-11-28 13:42:44.000 UTC|ann|shop|4711|",
    "%c %m %a:": "6b0b99c4.1267 2026-11-28 13:42:44.000 UTC my app: ",
    "%s %m [%p]": "2026-11-28 11:00:00 UTC 2026-11-28 13:42:44.000 UTC [7] ",
    "syslog": "Nov 28 13:42:44 host postgres[7]: [3-1] 2026-11-28 13:42:44.000 UTC [7] ",
}


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
def test_prefixes(prefix: str, tmp_path: Path) -> None:
    text = entry("duration: 1000.000 ms  statement: SELECT 1", prefix)
    if "postgres[" in prefix:
        text += "Nov 28 13:42:44 host postgres[7]: [3-2] #011 FROM a\n"
    else:
        text += "\t FROM a\n"
    writer = of(tmp_path, text)
    [span] = writer.table("spans").to_dicts()
    assert (span["start_ns"], span["duration_ns"]) == (END_NS - 10**9, 10**9)
    assert span["db_statement"] == "SELECT 1\n FROM a"
    assert span["pid"] in (7, 4711)
    attributes = json.loads(span["attributes"] or "{}")
    if "ann@" in prefix or "user=" in prefix:
        assert (attributes["db.user"], attributes["db.namespace"]) == ("ann", "shop")
    noted = any("%m in log_line_prefix" in note for note in writer.info.notes)
    assert noted == ("44.000" not in prefix and "64.000" not in prefix)


def test_a_prefix_without_a_time_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="log_line_prefix needs %m"):
        of(tmp_path, entry("duration: 1.000 ms  statement: SELECT 1", "[7] "))


def test_the_samples_of_each_shape_say_the_same() -> None:
    """They are of the same work, once for each format of plans."""
    found = []
    for name in ("-german.log", "-csvlog.csv", "-jsonlog.json"):
        writer = imported(SAMPLES / f"postgresql{name}")
        plans = set(writer.table("span_events")["span_id"])
        spans = writer.table("spans").to_dicts()
        found.append({row["db_statement"]: row["span_id"] in plans for row in spans})
        assert not writer.lost()
    for one in found:
        assert one["select count(*) from cart\n where item like '%9%'"]
        assert one["select * from cart where id = $1 and item <> $2"]  # which came behind it
        assert sum(one.values()) >= 3


def test_parameters_are_those_of_their_statement(tmp_path: Path) -> None:
    text = (
        entry("duration: 0.100 ms  bind S_1: select $1, $2")
        + entry("parameters: $1 = 'bound', $2 = NULL", severity="DETAIL")
        + entry("duration: 5.000 ms  execute S_1: select $1, $2")
        + entry("parameters: $1 = 'it''s \n\ta \"x\"', $2 = NULL", severity="DETAIL")
        + entry("duration: 7.000 ms  execute S_1/C_2: select $1, $2")
    )
    writer = of(tmp_path, text)
    first, second = (json.loads(row or "{}") for row in writer.table("spans")["attributes"])
    assert first["db.query.parameter.1"] == 'it\'s \na "x"'
    assert first["db.query.parameter.2"] == "NULL"
    assert "db.query.parameter.1" not in second
    assert any("1 entries of parsing" in note for note in writer.info.notes)


def test_durations_whose_statement_was_logged_before(tmp_path: Path) -> None:
    """As log_statement = all makes them, which leaves the text out of the duration."""
    text = (
        entry("duration: 9.000 ms")
        + entry("statement: SELECT 1")
        + entry("statement: SELECT 2", f"{AT} [8] ")
        + entry("duration: 1.000 ms")
        + entry("duration: 2.000 ms", f"{AT} [8] ")
        + entry("execute <unnamed>: SELECT $1")
        + entry("parameters: $1 = '3'", severity="DETAIL")
        + entry("duration: 3.000 ms")
    )
    spans = of(tmp_path, text).table("spans").sort("duration_ns")
    assert spans["db_statement"].to_list() == ["SELECT 1", "SELECT 2", "SELECT $1"]
    assert spans["duration_ns"].to_list() == [1_000_000, 2_000_000, 3_000_000]
    assert json.loads(spans["attributes"][2])["db.query.parameter.1"] == "3"


def test_statements_inside_of_functions_are_children(tmp_path: Path) -> None:
    plan = "duration: {} ms  plan:\n\tQuery Text: {}\n\tResult  (cost=0.00..0.01 rows=1 width=4)"
    text = (
        entry(plan.format("1.000", "SELECT inner"))
        + entry(plan.format("4.000", "SELECT f()"))
        + entry("duration: 5.000 ms  statement: SELECT f()")
    )
    spans = of(tmp_path, text).table("spans").sort("duration_ns")
    assert spans["db_statement"].to_list() == ["SELECT inner", "SELECT f()"]
    assert spans["parent_id"].to_list() == [spans["span_id"][1], None]
    assert spans["parent_inferred"].to_list() == [True, False]
    assert spans["trace_lo"].n_unique() == 1


def test_a_log_in_two_shapes_counts_once(tmp_path: Path) -> None:
    fields = [""] * 26
    fields[0], fields[1], fields[2], fields[3] = "2026-11-28 13:42:44.000 UTC", '"a"', '"b"', "7"
    fields[5:9] = ["6b0b99bc.1d30", "1", '"SELECT"', "2026-11-28 13:42:44 UTC"]
    fields[11], fields[13] = "LOG", '"duration: 1.000 ms  statement: SELECT ""x""\nFROM a"'
    record = ",".join(fields) + "\n"
    (tmp_path / "a.csv").write_text(record * 2)
    text = entry('duration: 1.000 ms  statement: SELECT "x"\n\tFROM a')
    (tmp_path / "a.log").write_text(text * 2)
    writer = imported(tmp_path)
    assert writer.table("spans")["span_id"].n_unique() == 2
    assert any("2 of 4 spans are there already" in note for note in writer.info.notes)
    # Of a record that is cut the next one is not lost.
    (tmp_path / "a.csv").write_text(record + record[: record.index("FROM")] + record)
    with pytest.raises(InputError, match=r"a\.csv, line 3: cut off"):
        imported(tmp_path / "a.csv")
    assert imported(tmp_path / "a.csv", keep_going=True).info.rows["spans"] == 2


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Dauer: 1.234 ms  Anweisung: SELECT 1", "SELECT 1"),
        ("durée : 1.234 ms, instruction : SELECT 1", "SELECT 1"),
        ("durée : 1.234 ms  exécute <unnamed>: SELECT 1", "SELECT 1"),
        ("продолжительность: 1.234 мс, оператор: SELECT 1", "SELECT 1"),
        ("продолжительность: 1.234 мс  выборка из S/C: SELECT 1", "SELECT 1"),
        ("期間: 1.234 ミリ秒  文: SELECT 1", "SELECT 1"),
        ("执行时间: 1.234 ms 语句: SELECT 1", "SELECT 1"),
        ("执行时间: 1.234 ms 执行S_1: SELECT 1", "SELECT 1"),
        ("실행시간: 1.234 ms  명령 구문: SELECT 1", "SELECT 1"),
        ("duración: 1.234 ms  ejecutar fetch desde S_1/C_2: SELECT 1", "SELECT 1"),
        ("duration: 1.234 ms", None),
    ],
)
def test_languages(text: str, query: str | None) -> None:
    message = postgresql_messages.parse(text)
    assert message is not None
    assert (message.kind, message.ms, message.query) == ("ended", "1.234", query)


@pytest.mark.parametrize("text", ["checkpoint complete: wrote 3 buffers", "select 1: x", "3 ms"])
def test_what_is_no_statement(text: str) -> None:
    assert postgresql_messages.parse(text) is None


@pytest.mark.parametrize(
    "plan",
    [
        'Query Text: "a\\n \\"b\\""\nPlan: \n  Node Type: "Result"',
        '{\n  "Query Text": "a\\n \\"b\\"",\n  "Plan": {}\n}',
        "<explain>\n  <Query-Text>a\n &quot;b&quot;</Query-Text>\n</explain>",
        'Query Text: a\n "b"\nResult  (cost=0.00..0.01 rows=1 width=4)',
        "Query Text: a\n \"b\"\nQuery Parameters: $1 = 'c'\nResult  (cost=0.00..0.01 rows=1)",
    ],
)
def test_the_statement_in_a_plan(plan: str) -> None:
    message = postgresql_messages.parse(f"duration: 1.234 ms  plan:\n{plan}")
    assert message is not None
    assert (message.kind, message.query, message.plan) == ("plan", 'a\n "b"', plan)


def test_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    hour = 3600
    expected = {"UTC": 0, "-03": -3 * hour, "+0530": 5.5 * hour, "CEST": 2 * hour, "JST": 9 * hour}
    assert {name: zones.offset_s(name, 2026) for name in expected} == expected
    assert zones.offset_s("XYZ", 2026) is None
    zones._of_all.cache_clear()
    for own, offset in (("Asia/Shanghai", 8), ("America/Chicago", -6), ("UTC", None)):
        monkeypatch.setenv("TZ", own)
        time.tzset()
        zones._of_all.cache_clear()
        assert zones.offset_s("CST", 2026) == (offset * hour if offset else None)
    monkeypatch.undo()
    time.tzset()
    zones._of_all.cache_clear()
