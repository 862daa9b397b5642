"""A live PostgreSQL of Debian: statements, the gateway's tables, and that no secret gets out."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import psycopg
import pytest

from bench.postgresql import installed, running
from perfkit.analysis.database import table_scans
from perfkit.errors import InputError
from perfkit.importers import import_files, postgresql
from perfkit.manifest import _without_secrets
from tests.analysis.sampled import tables
from tests.importers.memory import MemoryWriter, imported

SAMPLES = Path(__file__).resolve().parent / "samples"
SECRET = "hunter2?x@y/z"
QUOTED = "hunter2%3Fx%40y%2Fz"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    if installed() is None:
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    folder = tmp_path_factory.mktemp("live") / "postgresql"
    folder.mkdir()
    with running(folder, "-c", "shared_preload_libraries=pg_stat_statements") as port:
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
def test_no_error_quotes_the_url(url: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "perfkit.cli", "import", url, "-o", tmp_path / "x.perfkit"],
        capture_output=True,
        text=True,
        env={**os.environ, "PGCONNECT_TIMEOUT": "2"},
        check=False,
    )
    assert done.returncode == 1
    assert "hunter2" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
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
