"""`record --instrument` with real frameworks and servers, whose programs know nothing of it."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import polars as pl
import pytest

from perfkit.analysis.session import Tables
from perfkit.capture import Capture
from tests.collect import instrumented
from tests.collect.instrumented import PYTHON, free_port, get_all, recorded
from tests.collect.programs import functions, skip_without_own_ptrace

pytestmark = pytest.mark.real


def served(capture: Path) -> pl.DataFrame:
    """Return the server spans of routes."""
    return (
        Capture.open(capture)
        .table("spans")
        .filter((pl.col("kind") == "server") & ~pl.col("endpoint").str.ends_with("none"))
        .collect()
    )


def exported(capture: Path) -> pl.DataFrame:
    """Return the metrics that came over OTLP."""
    return Capture.open(capture).table("metrics").filter(pl.col("service").is_not_null()).collect()


def code_by_color(capture: Path, color: str) -> dict[str, float]:
    """Return under what the running time of `code_of_COLOR` was put: endpoint or `ambiguous`."""
    tables = Tables(Capture.open(capture))
    stacks = functions(tables.capture).unique("stack_id")
    mine = stacks.filter(pl.col("functions").list.contains(f"code_of_{color}"))
    sums = (
        tables.frame("code_by_entry")
        .join(mine.select("stack_id"), on="stack_id", how="semi")
        .with_columns(
            where=pl.when("ambiguous")
            .then(pl.lit("ambiguous"))
            .otherwise(pl.col("entry_endpoint").fill_null("none"))
        )
        .group_by("where")
        .agg(pl.col("running_ns").sum())
    )
    total = sums["running_ns"].sum()
    assert total > 0, f"code_of_{color} was not seen"
    return {where: running / total for where, running in sums.iter_rows()}


def test_flask_in_threads(tmp_path: Path) -> None:
    skip_without_own_ptrace()
    (tmp_path / "shop.py").write_text(instrumented.FLASK)
    port = free_port()
    with recorded(tmp_path, port, PYTHON, "shop.py", str(port)) as capture:
        get_all(port, [f"/{color}/{n}" for n in range(10) for color in ("red", "blue")])
    spans = served(capture)
    assert dict(spans.group_by("endpoint").len().iter_rows()) == {
        "GET /red/<name>": 10,
        "GET /blue/<name>": 10,
    }
    assert set(spans["service"]) == {"shop"}
    assert spans["pid"].n_unique() == 1
    assert spans["thread_id"].n_unique() > 1
    statements = Capture.open(capture).table("spans").collect()["db_statement"].drop_nulls()
    assert statements.str.contains("SELECT 1").sum() == 10
    assert {"db.client.connections.usage", "cpython.gc.pause.time"} <= set(
        exported(capture)["name"]
    )
    assert Capture.open(capture).info.notes == []
    for color in ("red", "blue"):
        # Each request has its thread: only the edges of a request can be mistaken.
        assert code_by_color(capture, color)[f"GET /{color}/<name>"] > 0.9


@pytest.mark.parametrize("workers", [1, 2])
def test_fastapi_on_uvicorn(tmp_path: Path, workers: int) -> None:
    skip_without_own_ptrace()
    (tmp_path / "shop.py").write_text(instrumented.FASTAPI)
    port = free_port()
    uvicorn = str(Path(PYTHON).with_name("uvicorn"))
    command = (uvicorn, "shop:app", "--port", str(port), "--workers", str(workers))
    with recorded(tmp_path, port, *command) as capture:
        colors = ("red", "blue", "green")
        get_all(port, [f"/{color}/{n}" for n in range(20) for color in colors], clients=6)
    spans = served(capture)
    assert dict(spans.group_by("endpoint").len().iter_rows()) == {
        f"GET /{color}/{{name}}": 20 for color in ("red", "blue", "green")
    }
    assert set(spans["service"]) == {"shop"}
    assert spans["pid"].n_unique() == spans["instance"].n_unique() == workers
    assert spans["attributes"].str.contains('"perfkit.steps"', literal=True).all()
    # Steps of 20 ms beside each other are too short for the sampler: ambiguous, but hardly wrong.
    for color in ("red", "blue"):
        assert wrong(capture, color) < 0.05
    # Work that the loop gave to threads.
    assert code_by_color(capture, "green")["GET /green/{name}"] > 0.5


def wrong(capture: Path, color: str) -> float:
    """Return the share of the running time of a color that was put under something else."""
    found = code_by_color(capture, color)
    return 1 - found.get("ambiguous", 0.0) - found.get(f"GET /{color}/{{name}}", 0.0)


def test_long_steps_of_a_loop_are_told_apart(tmp_path: Path) -> None:
    skip_without_own_ptrace()
    (tmp_path / "shop.py").write_text(instrumented.FASTAPI.replace("compute(0.02)", "compute(0.3)"))
    port = free_port()
    uvicorn = str(Path(PYTHON).with_name("uvicorn"))
    command = (uvicorn, "shop:app", "--port", str(port))
    # By default the sampler would be slowed down on a busy machine until nothing is certain.
    with recorded(tmp_path, port, *command, options=("--max-overhead", "90%")) as capture:
        get_all(port, [f"/{color}/{n}" for n in range(4) for color in ("red", "blue")])
    for color in ("red", "blue"):
        assert code_by_color(capture, color)[f"GET /{color}/{{name}}"] > 0.2
        assert wrong(capture, color) < 0.05


HANGS = """
import asyncio
from fastapi import FastAPI, Request

app, never = FastAPI(), asyncio.Event()

@app.middleware("http")
async def pass_on(request: Request, call_next):
    return await call_next(request)

async def wait_for_stock():
    await never.wait()

@app.get("/stock")
async def stock():
    await wait_for_stock()
"""


def test_what_hangs_on_an_event_loop_is_named_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(HANGS)
    port = free_port()
    uvicorn = str(Path(PYTHON).with_name("uvicorn"))
    with recorded(tmp_path, port, uvicorn, "shop:app", "--port", str(port)) as capture:
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        for client in clients:
            client.sendall(b"GET /stock HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(15)
    for client in clients:
        client.close()
    (row,) = Tables(Capture.open(capture)).frame("open_requests").to_dicts()
    assert (row["endpoint"], row["open"], row["unanswered"], row["waiting"]) == (
        *("GET /stock", 3, 3, 3),
    )
    assert row["function"].endswith("wait_for_stock")
    assert row["file"] == str(tmp_path / "shop.py")
    assert row["waits_in"].endswith("wait")


def test_gunicorn_tells_its_forked_workers_apart(tmp_path: Path) -> None:
    skip_without_own_ptrace()
    (tmp_path / "shop.py").write_text(instrumented.FLASK)
    port = free_port()
    gunicorn = str(Path(PYTHON).with_name("gunicorn"))
    command = (gunicorn, "shop:app", "--bind", f"127.0.0.1:{port}", "--workers", "2")
    with recorded(tmp_path, port, *command, "--threads", "2", "--preload") as capture:
        get_all(port, [f"/{color}/{n}" for n in range(40) for color in ("red", "blue")])
    spans = served(capture)
    assert spans.height == 80
    assert spans["pid"].n_unique() == 2
    assert spans.group_by("pid").agg(pl.col("instance").n_unique())["instance"].to_list() == [1, 1]
    assert spans["instance"].n_unique() == 2
    # Each worker counts for itself: sums of two in one series would jump up and down.
    collections = exported(capture).filter(pl.col("name") == "cpython.gc.collections")
    assert set(spans["instance"]) <= set(collections["instance"])
    series = collections.sort("ts_ns").group_by("instance", "attributes").agg("value")
    assert all(values == sorted(values) for values in series["value"].to_list())


def test_django_on_postgresql(tmp_path: Path, postgresql: int) -> None:
    skip_without_own_ptrace()
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    settings = instrumented.DJANGO_SETTINGS.replace("PORT_OF_THE_DATABASE", str(postgresql))
    (tmp_path / "shop" / "settings.py").write_text(settings)
    (tmp_path / "shop" / "urls.py").write_text(instrumented.DJANGO_URLS)
    (tmp_path / "manage.py").write_text(instrumented.DJANGO_MANAGE)
    port = free_port()
    command = (PYTHON, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}")
    with recorded(tmp_path, port, *command) as capture:
        # Django connects anew for each request: one is to last while connections are looked at.
        get_all(port, [*(f"/red/{n}" for n in range(20)), "/hold"])
    spans = served(capture)
    assert dict(spans.group_by("endpoint").len().iter_rows()) == {
        "GET red/<str:name>": 20,
        "GET hold": 1,
    }
    tables = Capture.open(capture)
    queries = tables.table("spans").filter(pl.col("db_statement").is_not_null()).collect()
    assert queries["db_statement"].str.contains("generate_series").sum() == 20
    assert set(queries["db_system"]) == {"postgresql"}
    assert set(queries["trace_lo"]) >= set(spans["trace_lo"])
    # And without any instrumentation: the connections, as the kernel knows them.
    connections = tables.table("metrics").filter(
        pl.col("name") == "process.network.connection.count"
    )
    peers = [json.loads(text) for text in connections.collect()["attributes"].unique()]
    assert any(peer.get("network.peer.port") == postgresql for peer in peers)
