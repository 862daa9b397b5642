"""The theatre as it runs: what is behind it, and who visits it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import postgresql, redis_server
from bench.planted.load import Visit
from bench.planted.record import Service, served
from bench.postgresql import free_port
from bench.theatre.database import fill
from bench.theatre.problems import PROBLEMS

_VISITS: tuple[Visit, ...] = (
    (2, 6, lambda r: f"/book?sale={r.randint(1, 600_000)}"),
    (6, 1, lambda r: f"/seats?show={r.randrange(400)}"),
    (6, 1, lambda r: f"/shows?first={r.randrange(400)}"),
    (6, 1, lambda r: f"/reprint?sale={r.randint(1, 600_000)}"),
    (6, 1, lambda r: f"/takings?show={r.randrange(400)}"),
    (3, 1, lambda r: f"/login?name={r.randrange(10**6)}"),
    (6, 1, lambda r: f"/history?page={r.randint(8000, 9500)}"),
    (3, 1, lambda r: f"/poster?show={r.randrange(400)}"),
)


@contextmanager
def _running(capture: Path, folder: Path, planted: Collection[str]) -> Iterator[str]:
    with (
        postgresql.running(folder) as database_port,
        redis_server.running(folder) as redis_port,
    ):
        database = f"postgresql://postgres@127.0.0.1:{database_port}/postgres"
        fill(database)
        upstream, theatre = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        environment = os.environ | {
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "THEATRE_PROBLEMS": ",".join(planted),
            "THEATRE_DATABASE": database,
            "THEATRE_REDIS_PORT": str(redis_port),
            "THEATRE_UPSTREAM": upstream,
        }

        def uvicorn(application: str, url: str) -> list[str]:
            port = url.rpartition(":")[2]
            return ["uvicorn", application, "--port", port, "--log-level", "warning"]

        # As the helpdesk's: they only answer after a while.
        behind = uvicorn("bench.helpdesk.upstream:app", upstream)
        with (
            served(behind, upstream, environment),
            served(uvicorn("bench.theatre.app:app", theatre), theatre, environment, capture),
        ):
            yield theatre


THEATRE = Service(PROBLEMS, _VISITS, _running)
"""FastAPI under uvicorn, SQLAlchemy's async engine on asyncpg, httpx, redis.asyncio."""
