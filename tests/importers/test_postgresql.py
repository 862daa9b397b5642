"""A live PostgreSQL of Debian: statements, the gateway's tables, and that no secret gets out."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import psycopg
import pytest

from bench.postgresql import installed, running
from perfkit.analysis.database import table_scans
from perfkit.cli import main
from perfkit.errors import InputError
from perfkit.importers import import_files, postgresql
from perfkit.manifest import _without_secrets
from tests.analysis.sampled import tables
from tests.importers.memory import MemoryWriter, imported

SAMPLES = Path(__file__).resolve().parent / "samples"
SECRET = "hunter2?x@y/z"
QUOTED = "hunter2%3Fx%40y%2Fz"
SETTINGS = (
    "shared_preload_libraries=pg_stat_statements,auto_explain",
    "lc_messages=C",
    "logging_collector=on",
    "log_destination=stderr,csvlog,jsonlog",
    "log_directory=log",
    "log_filename=server.log",
    "log_line_prefix=%m [%p] %q%u@%d ",
)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    if installed() is None:
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    folder = tmp_path_factory.mktemp("live") / "postgresql"
    folder.mkdir()
    options = [option for setting in SETTINGS for option in ("-c", setting)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANGUAGE", "de")  # where its translations are; with lc_messages = C English
        server = contextlib.ExitStack()
        port = server.enter_context(running(folder, *options))
    with server:
        with connect(port) as database:
            database.execute("CREATE EXTENSION pg_stat_statements")
            database.execute(f"CREATE ROLE reader LOGIN PASSWORD '{SECRET}'")
            database.execute("CREATE TABLE things AS SELECT i FROM generate_series(1, 100) i")
            for number in range(7):
                database.execute(f"SELECT count(*) FROM things WHERE i > {number}")
            database.execute("CREATE DATABASE gateway")
            database.execute("CREATE DATABASE empty")
        yield port


def connect(port: int, name: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/{name}", autocommit=True)


def live(url: str) -> MemoryWriter:
    writer = MemoryWriter()
    import_files([], writer, databases=[url])
    return writer


@pytest.mark.real
def test_statements_are_read_live_and_without_secrets(port: int, tmp_path: Path) -> None:
    output = tmp_path / "live.perfkit"
    url = f"postgresql://postgres:{QUOTED}@127.0.0.1:{port}/postgres?application_name=s3cret"
    done = subprocess.run(
        [sys.executable, "-m", "perfkit.cli", "import", url, "-o", output],
        capture_output=True,
        text=True,
        check=True,
    )
    everything = done.stderr + (output / "capture.json").read_text()
    rows = pl.read_parquet(output / "metrics" / "*.parquet")
    everything += "".join(rows["attributes"])
    for secret in ("hunter2", "s3cret"):
        assert secret not in everything
    assert f"postgresql://127.0.0.1:{port}/postgres" in everything
    found = [
        (row, json.loads(row["attributes"]))
        for row in rows.filter(pl.col("name") == "db.client.operation.duration").to_dicts()
    ]
    texts = {attributes["db.query.text"]: (row, attributes) for row, attributes in found}
    row, attributes = texts["SELECT count(*) FROM things WHERE i > $1"]
    assert (row["count"], row["unit"], row["kind"]) == (7, "s", "histogram")
    with connect(port) as database:
        expected = database.execute(
            "SELECT total_exec_time FROM pg_stat_statements WHERE query LIKE '%things WHERE%'"
        ).fetchone()
    assert expected is not None
    assert row["value"] == pytest.approx(expected[0] / 1000)
    assert attributes["db.namespace"] == "postgres"
    assert any("PASSWORD [masked]" in text for text in texts)


@pytest.mark.real
def test_tables_that_are_read_as_a_whole_are_found(port: int) -> None:
    with connect(port) as database:
        database.execute("CREATE TABLE large AS SELECT i FROM generate_series(1, 20000) i")
        for number in range(60):
            database.execute(f"SELECT count(*) FROM large WHERE i = {number}")
        database.execute("SELECT pg_sleep(1.1)")  # statistics are handed in once a second
    writer = live(f"postgresql://postgres@127.0.0.1:{port}/postgres")
    found = table_scans.compute(tables(metrics=writer.table("metrics").to_dicts())).to_dicts()
    [large] = [row for row in found if row["table"] == "large"]
    assert (large["database"], large["schema"], large["over_ns"]) == ("postgres", "public", None)
    assert large["scans"] >= 60
    assert large["scanned_rows"] >= 60 * 20_000
    assert large["index_scans"] is None


@pytest.mark.real
def test_statements_of_others_are_counted_as_hidden(port: int) -> None:
    writer = live(f"postgresql://reader:{QUOTED}@127.0.0.1:{port}/postgres")
    [loss] = [loss for loss in writer.info.lost if loss.what == "statement of another user"]
    assert loss.count > 3


@pytest.mark.real
def test_nothing_is_changed_and_slow_reading_is_cut_off(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    with (
        postgresql._connected(url) as database,
        pytest.raises(psycopg.errors.ReadOnlySqlTransaction),
    ):
        database.execute("CREATE TABLE evil ()")
    with connect(port, "empty") as database:
        database.execute("CREATE TABLE observability_spans (span_id text, trace_id text)")
        database.execute("ALTER TABLE observability_spans RENAME TO spans")
        database.execute(
            "CREATE VIEW observability_spans AS SELECT *, pg_sleep(60)::text AS start_time"
            " FROM (SELECT 'a' AS span_id, 'b' AS trace_id, '(0,1)'::tid AS ctid) x"
        )
    monkeypatch.setattr(postgresql, "_STATEMENT_TIMEOUT", "200ms")
    with pytest.raises(InputError, match="statement timeout") as caught:
        live(f"postgresql://postgres@127.0.0.1:{port}/empty")
    assert "overloaded" in str(caught.value.hint)


@pytest.mark.real
def test_the_gateways_tables_are_read_as_from_sqlite(port: int, gateway: Path) -> None:
    text = (SAMPLES / "gateway.sql").read_text(encoding="utf-8")
    # As the gateway makes them in PostgreSQL; its times there have a zone.
    text = text.replace("DATETIME", "TIMESTAMPTZ").replace("FLOAT", "DOUBLE PRECISION")
    text = text.replace(" JSON", " TEXT").replace(", 'x')", ", now())")
    text = re.sub(r"is_success BOOLEAN", "is_success INTEGER", text)
    with connect(port, "gateway") as database:
        database.execute("SET timezone = 'UTC'")
        for part in text.split(";\n"):
            if part.strip():
                database.execute(part.encode())
        for table in ("traces", "spans", "events", "metrics"):
            # Those that are JSON become it; one of the sample's is none.
            database.execute(
                f"ALTER TABLE observability_{table} ALTER attributes TYPE json USING"
                " CASE WHEN attributes LIKE '{%' THEN attributes::json"
                " ELSE to_json(attributes) END".encode()
            )
    found = live(f"postgresql://postgres@127.0.0.1:{port}/gateway")
    expected = imported(gateway)
    assert found.info.rows == expected.info.rows
    order = {"spans": "span_id", "span_events": "ts_ns", "metrics": "ts_ns"}
    for table, column in order.items():
        assert found.table(table).sort(column).equals(expected.table(table).sort(column))
    assert found.lost() == expected.lost()


@pytest.mark.real
def test_a_database_without_either_says_what_to_do(port: int) -> None:
    with connect(port) as database:
        database.execute("CREATE DATABASE bare")
    with pytest.raises(InputError, match="no extension pg_stat_statements") as caught:
        live(f"postgresql://postgres@127.0.0.1:{port}/bare")
    assert "CREATE EXTENSION" in str(caught.value.hint)
    with pytest.raises(InputError, match="does not exist"):
        live(f"postgresql://postgres:{QUOTED}@127.0.0.1:{port}/absent")


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{SECRET}@127.0.0.1:1/db",
        f"postgresql://me:{QUOTED}@127.0.0.1:1/db",
        f"postgresql://127.0.0.1:1/db?password={QUOTED}",
        "postgresql://me@127.0.0.1:hunter2/db",
        "postgresql://me:%00hunter2@127.0.0.1:1/db",
        "postgresql://me:hunter2@127.0.0.1:1/db?hunter2=hunter2",
        "postgres://me:hunter2@[::1",
    ],
)
def test_no_error_quotes_the_url(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "2")
    monkeypatch.setattr(main, "end_on_signals", lambda: None)
    monkeypatch.setattr(sys, "argv", ["perfkit", "import", url, "-o", f"{tmp_path}/x.perfkit"])
    with pytest.raises(SystemExit) as ended:
        main.run()
    assert ended.value.code == 1
    said = "".join(capfd.readouterr())
    assert said.startswith("perfkit: error: ")
    assert "hunter2" not in said
    assert not list(tmp_path.iterdir())


def test_without_psycopg_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InputError, match="needs psycopg") as caught:
        live("postgresql://127.0.0.1/db")
    assert caught.value.hint == "pip install 'perfkit[postgresql]'"


def test_the_stored_command_has_no_url_with_secrets() -> None:
    given = ["perfkit", "import", "postgresql://me:x@h/d", "s3://bucket/a", "http://h/?key=x"]
    assert _without_secrets(given) == [
        *("perfkit", "import", "postgresql://***", "s3://bucket/a", "http://***"),
    ]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("ALTER ROLE a PASSWORD 'it''s x'", "ALTER ROLE a PASSWORD [masked]"),
        (r"CREATE USER a PASSWORD E'a\'b' LOGIN", "CREATE USER a PASSWORD [masked] LOGIN"),
        ("SUBSCRIPTION s CONNECTION 'host=h password=x'",
         "SUBSCRIPTION s CONNECTION 'host=h password=[masked]'"),
        ("SELECT 1 FROM u WHERE password = $1", "SELECT 1 FROM u WHERE password = $1"),
        ("SELECT password FROM u", "SELECT password FROM u"),
    ],
)  # fmt: skip
def test_passwords_in_statements_are_masked(text: str, masked: str, tmp_path: Path) -> None:
    path = tmp_path / "statements.csv"
    path.write_text(f'query,calls,total_exec_time\n"{text}",1,2\n')
    [row] = imported(path).table("metrics").to_dicts()
    assert json.loads(row["attributes"])["db.query.text"] == masked


def executed(port: int, **settings: str) -> list[str]:
    """Run statements of each kind and return those that a log should have."""
    query = "SELECT count(*) FROM things\n WHERE i > 3"
    prepared = "SELECT i FROM things WHERE i = %s AND i::text <> %s"
    with connect(port) as database:
        database.execute("SET auto_explain.log_analyze = on")
        for name, value in settings.items():
            database.execute(f"SET {name.replace('__', '.')} = '{value}'".encode())
        database.execute("SET auto_explain.log_min_duration = 0")
        database.execute("SET log_min_duration_statement = 0")
        database.execute(query.encode())
        database.execute(prepared.encode(), (42, 'it\'s\n\t"x"'), prepare=True)
        database.execute("SELECT 'LOG:  duration: 1 ms  statement: no'")
        with contextlib.suppress(psycopg.errors.DivisionByZero):
            database.execute("SELECT 1/0")
    texts = ["SET log_min_duration_statement = 0", query, prepared.replace("%s", "$1", 1)]
    texts[2] = texts[2].replace("%s", "$2")
    return [*texts, "SELECT 'LOG:  duration: 1 ms  statement: no'"]


@pytest.mark.real
def test_logs_of_a_server_in_every_shape(port: int) -> None:
    with connect(port) as database:
        database.execute("ALTER SYSTEM SET log_timezone = 'Europe/Berlin'")
        database.execute("SELECT pg_reload_conf()")
        [folder] = database.execute("SHOW data_directory").fetchone() or ["?"]
        time.sleep(0.3)  # each process reads it between two statements
    begin_ns = time.time_ns()
    expected = [
        text
        for language in ("C", "C.UTF-8")
        for form in ("text", "json", "yaml", "xml")
        for text in executed(port, lc_messages=language, auto_explain__log_format=form)
    ]
    logs = [Path(str(folder)) / "log" / f"server.{ending}" for ending in ("log", "csv", "json")]
    deadline = time.monotonic() + 20
    while not all("1/0" in log.read_text()[-4000:] for log in logs):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    shapes = [imported(log) for log in logs]
    for writer in shapes:
        spans = writer.table("spans").filter(pl.col("start_ns") > begin_ns - 10**6)
        assert sorted(spans["db_statement"]) == sorted(expected)
        ended = spans["start_ns"] + spans["duration_ns"]
        assert ended.max() < time.time_ns()
        plans = writer.table("span_events").join(spans, on="span_id")["span_id"].to_list()
        assert len(plans) == len(set(plans)) == 3 * 8
        with_values = [row for row in spans["attributes"] if "db.query.parameter.1" in (row or "")]
        assert len(with_values) == 8
        for row in with_values:
            values = json.loads(row)
            assert values["db.query.parameter.1"] == "42"
            assert values["db.query.parameter.2"] == 'it\'s\n\t"x"'
    together = imported(*logs).table("spans")["span_id"].n_unique()
    assert together == shapes[0].info.rows["spans"]


@pytest.mark.real
def test_the_columns_of_every_version_of_the_statements(port: int, tmp_path: Path) -> None:
    with connect(port) as database:
        database.execute("CREATE DATABASE versions")
    with connect(port, "versions") as database:
        # 1.4 is of PostgreSQL 9.6 to 12, where times had other names; 1.8 of 13, 1.10 of 15.
        for version in ("1.4", "1.7", "1.8", "1.9", "1.10"):
            database.execute(f"CREATE EXTENSION pg_stat_statements VERSION '{version}'".encode())
            path = tmp_path / f"{version}.csv"
            copied = "COPY (SELECT * FROM pg_stat_statements) TO STDOUT CSV HEADER"
            with database.cursor().copy(copied) as rows, path.open("wb") as file:
                file.writelines(rows)
            metrics = imported(path).table("metrics")
            counted = metrics.filter(
                metrics["attributes"].str.contains("things WHERE i > $1", literal=True),
                metrics["name"] == "db.client.operation.duration",
            )
            assert counted["count"].sum() >= 7
            database.execute("DROP EXTENSION pg_stat_statements")
