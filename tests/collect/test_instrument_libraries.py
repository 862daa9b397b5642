"""`record --instrument` with real clients of stores, queues and other services."""

from __future__ import annotations

import subprocess
from pathlib import Path

import polars as pl
import pytest

from perfkit.capture import Capture
from tests.collect import instrumented
from tests.collect.instrumented import PYTHON, free_port, get_all, recorded
from tests.collect.programs import skip_without_own_ptrace
from tests.collect.test_instrument_real import code_by_color, exported, served

pytestmark = pytest.mark.real


def spans_of(capture: Path) -> pl.DataFrame:
    return Capture.open(capture).table("spans").collect()


def test_redis_and_httpx(tmp_path: Path, redis_port: int) -> None:
    skip_without_own_ptrace()
    (tmp_path / "shop.py").write_text(instrumented.REDIS_AND_HTTPX)
    port = free_port()
    with recorded(tmp_path, port, PYTHON, "shop.py", str(port), str(redis_port)) as capture:
        get_all(port, [f"/cart/{n}" for n in range(10)])
    requests, spans = served(capture), spans_of(capture)
    assert dict(requests.group_by("endpoint").len().iter_rows()) == {
        "GET /cart/<name>": 10,
        "GET /stock/<name>": 10,
    }
    stored = spans.filter(pl.col("db_system") == "redis")
    # A command, and two at once in a pipeline, in each request; their values are not recorded.
    assert sorted(stored["db_statement"].unique()) == ["GET ?\nTTL ?", "SET ? ?"]
    assert stored.height == 20
    assert set(stored["peer"]) == {f"localhost:{redis_port}"}
    asked = spans.filter((pl.col("kind") == "client") & (pl.col("http_method") == "GET"))
    assert asked.height == 10
    # What httpx asked is answered in the same trace, under the call.
    answered = requests.filter(pl.col("endpoint") == "GET /stock/<name>")
    assert set(answered["parent_id"]) == set(asked["span_id"])


def test_requests_and_psycopg2(tmp_path: Path, postgresql: int) -> None:
    skip_without_own_ptrace()
    (tmp_path / "shop.py").write_text(instrumented.REQUESTS_AND_PSYCOPG2)
    port = free_port()
    with recorded(tmp_path, port, PYTHON, "shop.py", str(port), str(postgresql)) as capture:
        get_all(port, [f"/item/{n}" for n in range(10)])
    requests, spans = served(capture), spans_of(capture)
    assert dict(requests.group_by("endpoint").len().iter_rows()) == {
        "GET /item/<int:number>": 10,
        "GET /stock/<name>": 10,
    }
    items = requests.filter(pl.col("endpoint") == "GET /item/<int:number>")
    queries = spans.filter(pl.col("db_system") == "postgresql")
    # The statement as it was written: no value of a request is in it.
    assert set(queries["db_statement"]) == {"SELECT %s::int + 1"}
    assert sorted(queries["parent_id"]) == sorted(items["span_id"])
    assert set(queries["peer"]) == {f"127.0.0.1:{postgresql}"}
    asked = spans.filter((pl.col("kind") == "client") & (pl.col("http_method") == "GET"))
    assert asked.height == 10
    assert set(asked["peer"]) == {f"127.0.0.1:{port}"}
    answered = requests.filter(pl.col("endpoint") == "GET /stock/<name>")
    assert set(answered["parent_id"]) == set(asked["span_id"])


def test_pymysql_and_urllib3(tmp_path: Path, mariadb: int) -> None:
    skip_without_own_ptrace()
    (tmp_path / "shop.py").write_text(instrumented.PYMYSQL_AND_URLLIB3)
    port = free_port()
    with recorded(tmp_path, port, PYTHON, "shop.py", str(port), str(mariadb)) as capture:
        get_all(port, [f"/item/{n}" for n in range(10)])
    requests, spans = served(capture), spans_of(capture)
    assert dict(requests.group_by("endpoint").len().iter_rows()) == {
        "GET /item/<int:number>": 10,
        "GET /stock/<name>": 10,
    }
    items = requests.filter(pl.col("endpoint") == "GET /item/<int:number>")
    queries = spans.filter((pl.col("db_system") == "mysql") & pl.col("parent_id").is_not_null())
    # As they were written; several of a kind at once are one.
    for statement in (
        "INSERT INTO item VALUES (%s)",
        "SELECT count(*) FROM item WHERE number = %s",
    ):
        these = queries.filter(pl.col("db_statement") == statement)
        assert sorted(these["parent_id"]) == sorted(items["span_id"])
    assert queries.height == 20
    assert set(queries["peer"]) == {f"127.0.0.1:{mariadb}"}
    # Ten and no more: what perfkit's exporter sends over urllib3 gives no spans.
    asked = spans.filter((pl.col("kind") == "client") & pl.col("http_method").is_not_null())
    assert sorted(asked["parent_id"]) == sorted(items["span_id"])
    assert set(asked["peer"]) == {f"127.0.0.1:{port}"}
    answered = requests.filter(pl.col("endpoint") == "GET /stock/<name>")
    assert sorted(answered["parent_id"]) == sorted(asked["span_id"])


def test_aiohttp_and_asyncpg(tmp_path: Path, postgresql: int) -> None:
    skip_without_own_ptrace()
    (tmp_path / "shop.py").write_text(instrumented.AIOHTTP_AND_ASYNCPG)
    port = free_port()
    with recorded(tmp_path, port, PYTHON, "shop.py", str(port), str(postgresql)) as capture:
        get_all(port, [f"/item/{n}" for n in range(10)])
    requests, spans = served(capture), spans_of(capture)
    assert dict(requests.group_by("endpoint").len().iter_rows()) == {
        "GET /item/{number}": 10,
        "GET /stock": 10,
    }
    queries = spans.filter(pl.col("db_system") == "postgresql")
    asked_for = queries.filter(
        pl.col("db_statement").str.contains("SELECT $1::int + 1", literal=True)
    )
    assert asked_for.height == 10
    assert set(asked_for["peer"]) == {f"127.0.0.1:{postgresql}"}
    assert set(asked_for["trace_lo"]) == set(requests["trace_lo"])
    called = spans.filter((pl.col("kind") == "client") & (pl.col("http_method") == "GET"))
    assert called.height == 10


def test_celery_with_forked_workers(tmp_path: Path, redis_port: int) -> None:
    skip_without_own_ptrace()
    (tmp_path / "tasks.py").write_text(instrumented.CELERY_TASKS)
    (tmp_path / "front.py").write_text(instrumented.CELERY_FRONT)
    port = free_port()
    with recorded(tmp_path, port, PYTHON, "front.py", str(port), str(redis_port)) as capture:
        get_all(port, [f"/send/{n}" for n in range(20)])
        instrumented.until(lambda: queue_is_empty(redis_port), "the tasks are taken")
    requests, spans = served(capture), spans_of(capture)
    sent = requests.filter(pl.col("endpoint") == "GET /send/<int:number>")
    assert sent.height == 20
    ran = spans.filter((pl.col("kind") == "consumer") & pl.col("name").str.contains("tasks.red"))
    assert ran.height == 20
    assert set(ran["trace_lo"]) == set(sent["trace_lo"])
    assert ran["pid"].n_unique() == 2
    assert not set(ran["pid"]) & set(sent["pid"])
    found = code_by_color(capture, "red")
    assert max(found, key=lambda where: found[where]) not in ("none", "ambiguous"), found


def queue_is_empty(port: int) -> bool:
    import redis

    client = redis.Redis(port=port)
    return client.llen("celery") == 0 and not client.hlen("unacked")


def test_sqlalchemy_in_django(tmp_path: Path) -> None:
    skip_without_own_ptrace()
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    settings = """
SECRET_KEY = "x"
ROOT_URLCONF = "shop.urls"
ALLOWED_HOSTS = ["*"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
"""
    (tmp_path / "shop" / "settings.py").write_text(settings)
    (tmp_path / "shop" / "urls.py").write_text(instrumented.DJANGO_SQLALCHEMY_URLS)
    (tmp_path / "manage.py").write_text(instrumented.DJANGO_MANAGE)
    port = free_port()
    command = (PYTHON, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}")
    with recorded(tmp_path, port, *command) as capture:
        get_all(port, [f"/red/{n}" for n in range(10)])
    requests, spans = served(capture), spans_of(capture)
    assert dict(requests.group_by("endpoint").len().iter_rows()) == {"GET red/<str:name>": 10}
    queries = spans.filter(pl.col("db_statement") == "SELECT 41 + 1")
    assert queries.height == 10
    assert set(queries["trace_lo"]) == set(requests["trace_lo"])
    assert "db.client.connections.usage" in set(exported(capture)["name"])


def test_a_program_that_leaks_connections_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / "leak.py").write_text(instrumented.LEAKING)
    record = (
        PYTHON,
        "-m",
        "perfkit.cli",
        "record",
        "--instrument",
        "--no-stacks",
        "-o",
        "x.perfkit",
    )
    process = subprocess.Popen(
        [*record, "--", PYTHON, "leak.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=instrumented.DEADLINE_S)
    except subprocess.TimeoutExpired:
        # It waits for a lock that it holds, for ever.
        process.terminate()
        output, _ = process.communicate(timeout=60)
    assert "ended" in output.splitlines(), output
    assert "db.client.connections.usage" in set(exported(tmp_path / "x.perfkit")["name"])
