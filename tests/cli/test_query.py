from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result

from perfkit.analysis import DERIVED
from perfkit.cli.main import run as run_perfkit
from perfkit.cli.query import command
from perfkit.cli.query_examples import EXAMPLES
from perfkit.errors import PerfkitError, UsageError
from tests.analysis.build import S, write

CALL = {"kind": "client", "db_system": "postgresql", "service": "shop"}
SPANS = [
    S(1, 10**18, 10**18 + 5_000_000, kind="server", endpoint="GET /a", service="shop"),
    *(
        S(
            number,
            10**18 + number * 100_000,
            10**18 + number * 100_000 + 50_000,
            1,
            db_statement=f"SELECT * FROM t WHERE id = {number}",
            **CALL,
        )
        for number in range(2, 9)
    ),
    S(20, 10**18 + 10**9, 10**18 + 2 * 10**9, kind="server", endpoint="GET /b\x1b[31m\u202e"),
]


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("query") / "shop.perfkit", SPANS)


def query(capture: Path, *arguments: str, **more: Any) -> Result:
    return CliRunner().invoke(command, [str(capture), *arguments], catch_exceptions=False, **more)


def test_csv_on_stdout_and_nothing_else(capture: Path) -> None:
    done = query(
        capture, "SELECT endpoint, p50_ns FROM endpoints ORDER BY p50_ns LIMIT 1", "--format", "csv"
    )
    assert done.stdout == "endpoint,p50_ns\nGET /a,5000000\n"
    assert done.stderr == ""


def test_json_has_null_for_what_json_cannot_say(capture: Path) -> None:
    done = query(
        capture,
        "SELECT LN(0 - requests) AS bad, LN(0 * requests) AS low, requests FROM endpoints LIMIT 1",
        "--format",
        "json",
    )
    assert json.loads(done.stdout) == [{"bad": None, "low": None, "requests": 1}]


def test_ids_are_hexadecimal_wherever_people_see_them(capture: Path) -> None:
    sql = "SELECT span_id, trace_lo FROM spans WHERE span_id = 2"
    expected = {"span_id": f"{2:016x}", "trace_lo": f"{1:016x}"}
    assert json.loads(query(capture, sql, "--format", "json").stdout) == [expected]
    assert query(capture, sql, "--format", "csv").stdout.splitlines()[1] == ",".join(
        expected.values()
    )
    assert expected["span_id"] in query(capture, sql).stdout


def test_parquet_keeps_the_types(capture: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    done = query(capture, "SELECT * FROM spans", "--format", "parquet", "-o", str(target))
    assert done.stdout == ""
    assert pl.read_parquet(target)["span_id"].to_list() == [span.id for span in SPANS]
    piped = query(capture, "SELECT callers FROM queries", "--format", "parquet")
    assert pl.read_parquet(io.BytesIO(piped.stdout_bytes)).schema == {"callers": pl.List(pl.String)}


def test_a_table_rounds_by_the_unit_in_the_name_and_fits_80_columns(capture: Path) -> None:
    done = query(capture, "SELECT * FROM requests WHERE entry")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "duration_ns" in done.stdout
    assert "5 ms" in done.stdout
    assert "2001-09-09 01:46:40.000Z" in done.stdout
    wide = query(capture, "SELECT * FROM spans")
    assert max(map(len, wide.stdout.splitlines())) <= 80
    assert "left out" in wide.stderr
    assert "--format csv" in wide.stderr


def test_recorded_texts_do_not_control_the_terminal(capture: Path) -> None:
    done = query(capture, "SELECT endpoint FROM endpoints")
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout


def test_an_empty_result_says_so_and_keeps_the_header(capture: Path) -> None:
    done = query(capture, "SELECT endpoint FROM endpoints WHERE requests > 99")
    assert done.stdout == "endpoint\n"
    assert done.stderr == "no rows\n"


def test_only_what_the_query_names_is_computed(
    capture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perfkit.analysis import session

    computed: list[str] = []
    original = session.Tables._compute

    def noting(self: session.Tables, name: str) -> pl.DataFrame:
        computed.append(name)
        return original(self, name)

    monkeypatch.setattr(session.Tables, "_compute", noting)
    query(capture, "SELECT name FROM spans")
    assert computed == []
    query(capture, "WITH a AS (SELECT endpoint FROM endpoints) SELECT * FROM a")
    needed, known = {"endpoints"}, {one.name: one for one in DERIVED}
    for _ in known:
        needed |= {above for name in needed & set(known) for above in known[name].needs}
    assert "endpoints" in computed
    assert set(computed) <= needed
    assert len(set(computed)) < len(known) / 2


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELECT nope FROM spans", "line 1, column 8: unknown column nope"),
        ("SELECT * FROM span", "did you mean spans?"),
        ("SELECT * FROM read_csv('/etc/passwd')", "READ_CSV is not a table"),
        ("DROP TABLE spans", "DROP is not allowed, only one SELECT"),
        ("SELECT 1; SELECT 2", "not exactly one statement"),
        ("SELECT * FROM spans CROSS JOIN spans AS b", "CROSS JOIN is not allowed"),
        ("SELECT (", "not valid SQL"),
        ("SELECT name + 1 AS x FROM spans WHERE name > 5", "SQL: "),
    ],
)
def test_sql_that_cannot_run_is_refused_in_one_line(capture: Path, sql: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        query(capture, sql)
    assert says in f"{error.value.message} {error.value.hint}"
    assert "\n" not in error.value.message


def test_exactly_one_thing_is_asked_for(capture: Path) -> None:
    for arguments in ([], ["SELECT name FROM spans", "--tables"]):
        with pytest.raises(UsageError, match="give one of"):
            query(capture, *arguments)


def test_sql_from_standard_input(
    capture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT COUNT(*) AS n FROM spans"))
    monkeypatch.setattr("sys.argv", ["perfkit", "query", str(capture), "-", "--format", "csv"])
    with pytest.raises(SystemExit) as left:
        run_perfkit()
    assert left.value.code == 0
    assert capsys.readouterr().out == f"n\n{len(SPANS)}\n"


def test_tables_and_columns_are_listed(capture: Path) -> None:
    listed = query(capture, "--tables").stdout
    assert max(map(len, listed.splitlines())) <= 80
    assert f"({len(SPANS)} rows)" in " ".join(listed.split())
    for derived in DERIVED:
        assert f"\n{derived.name} " in listed or f"\n{derived.name}\n" in listed
        columns = query(capture, "--tables", derived.name).stdout
        assert all(name in columns for name in derived.columns)
    assert "(Int64)" in query(capture, "--tables", "samples").stdout
    with pytest.raises(UsageError, match="unknown table endpoint"):
        query(capture, "--tables", "endpoint")


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_runs_and_fits(capture: Path, name: str, tmp_path: Path) -> None:
    done = query(capture, "--example", name)
    assert done.exit_code == 0
    assert EXAMPLES[name].sql.splitlines()[0] in done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    empty = query(write(tmp_path / "empty.perfkit", []), "--example", name)
    assert empty.stdout.split()[0] == done.stdout.split()[0]
    assert len(empty.stdout.splitlines()) == 1
    assert "no rows" in empty.stderr


SAMPLE_TABLES: dict[str, Any] = {
    "samples": {
        "ts_ns": [10**18, 10**18 + 10**7],
        "duration_ns": [10**7, 10**7],
        "count": [1, 1],
        "pid": [1, 1],
        "tid": [1, 1],
        "thread_name": ["MainThread", "MainThread"],
        "stack_id": [1, 1],
        "state": ["running", "idle"],
    },
    "stacks": {"stack_id": [1], "parent_id": [None], "frame_id": [7], "depth": [0]},
    "frames": {
        "frame_id": [7],
        "function": ["work"],
        "file": ["/app/shop.py"],
        "line": [3],
        "module": ["shop"],
        "category": ["app"],
    },
}
METRIC_TABLES: dict[str, Any] = {
    "metrics": {
        "ts_ns": [10**18 + number * 10**9 for number in range(60)],
        "name": ["process.cpu.utilization"] * 60,
        "unit": ["1"] * 60,
        "value": [0.5 + number % 3 / 10 for number in range(60)],
        "kind": ["gauge"] * 60,
        "service": ["shop"] * 60,
    }
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_runs_whatever_was_recorded(name: str, tmp_path: Path) -> None:
    """Other sources alone give no error: rows, or one line that says that there are none."""
    for kind, spans, tables, told in (
        ("spans", SPANS, {}, ("slow-endpoints", "slow-queries", "repeated-queries")),
        ("samples", [], SAMPLE_TABLES, ("hot-code",)),
        ("metrics", [], METRIC_TABLES, ()),
        ("empty", [], {}, ()),
    ):
        done = query(write(tmp_path / f"{kind}.perfkit", spans, **tables), "--example", name)
        assert done.exit_code == 0
        rows = len(done.stdout.splitlines()) - 1
        assert ("no rows" in done.stderr) == (rows == 0)
        assert rows > 0 or name not in told, kind
        assert kind != "empty" or rows == 0


def test_there_are_ten_examples() -> None:
    assert len(EXAMPLES) >= 10


def test_the_repeated_query_is_found_by_its_example(capture: Path) -> None:
    done = query(capture, "--example", "repeated-queries")
    assert "SELECT * FROM t WHERE id = ?" in done.stdout


def test_examples_are_listed(capture: Path) -> None:
    listed = query(capture, "--example").stdout
    assert all(name in listed for name in EXAMPLES)
    with pytest.raises(UsageError, match="no example 'slow'"):
        query(capture, "--example", "slow")


def test_a_capture_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(PerfkitError, match="no such capture"):
        query(tmp_path / "none.perfkit", "SELECT name FROM spans")
