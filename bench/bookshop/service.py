"""The bookshop as it runs: what is behind it, and who visits it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine

from bench import postgresql
from bench.bookshop.database import fill
from bench.bookshop.problems import PROBLEMS
from bench.planted.load import Visit
from bench.planted.record import Service, served
from bench.postgresql import free_port

BURST = 12
_VISITS: tuple[Visit, ...] = (
    (6, 1, lambda r: f"/authors?first={r.randint(1, 250)}"),
    (1, BURST, lambda r: f"/orders?book={r.randint(1, 3000)}"),
    (8, 1, lambda r: f"/reviews?book={r.randint(1, 3000)}"),
    (8, 1, lambda r: "/quote"),
    (4, 2, lambda r: f"/cover?book={r.randint(1, 3000)}"),
    (8, 1, lambda r: f"/shipping?order={r.randrange(10**6)}"),
    (8, 1, lambda r: f"/tax?order={r.randrange(10**6)}"),
    (8, 1, lambda r: f"/stock?book={r.randint(1, 3000)}"),
    (8, 1, lambda r: f"/search?word={r.choice(['tale', 'song'])}&visit={r.randrange(10**6)}"),
    (8, 1, lambda r: "/basket"),
    (6, 1, lambda r: "/bestsellers"),
    (8, 1, lambda r: "/price"),
)


@contextmanager
def _running(capture: Path, folder: Path, planted: Collection[str]) -> Iterator[str]:
    with postgresql.running(folder) as database_port:
        database = f"postgresql+psycopg://postgres@127.0.0.1:{database_port}/postgres"
        engine = create_engine(database)
        fill(engine, with_index="no_index" not in planted)
        engine.dispose()
        upstream, shop = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        environment = os.environ | {
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "BOOKSHOP_PROBLEMS": ",".join(planted),
            "BOOKSHOP_DATABASE": database,
            "BOOKSHOP_UPSTREAM": upstream,
            "UPSTREAM_FAILS": "1" if "retries" in planted else "",
        }
        with (
            served(_uvicorn("bench.bookshop.upstream:app", upstream), upstream, environment),
            served(
                _uvicorn("bench.bookshop.app:app", shop),
                f"{shop}/openapi.json",
                environment,
                capture,
            ),
        ):
            yield shop


def _uvicorn(application: str, url: str) -> list[str]:
    port = url.rpartition(":")[2]
    return ["uvicorn", application, "--port", port, "--log-level", "warning"]


BOOKSHOP = Service(PROBLEMS, _VISITS, _running)
"""FastAPI under uvicorn, SQLAlchemy and psycopg on PostgreSQL, HTTPX."""
