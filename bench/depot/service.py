"""The depot as it runs: what is behind it, and who visits it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import postgresql, redis_server
from bench.depot.database import fill
from bench.depot.problems import PROBLEMS
from bench.planted.load import Visit
from bench.planted.record import Service, served
from bench.postgresql import free_port

_VISITS: tuple[Visit, ...] = (
    (6, 1, lambda r: f"/summary?since={r.randint(1, 700_000)}"),
    (6, 1, lambda r: f"/inventory?first={r.randint(1, 500_000)}"),
    (6, 1, lambda r: f"/orders?first={r.randint(1, 19000)}"),
    (1, 20, lambda r: f"/customs?order={r.randrange(10**6)}"),
    (2, 4, lambda r: f"/reserve?order={r.randrange(10**6)}"),
    (6, 1, lambda r: "/delivery"),
    (6, 1, lambda r: f"/label?visit={r.randrange(10**9)}"),
    (8, 1, lambda r: f"/pack?order={r.randint(1, 20000)}"),
)


@contextmanager
def _running(capture: Path, folder: Path, planted: Collection[str]) -> Iterator[str]:
    # A small database server, which gives no query more than one process.
    alone = ("-c", "max_parallel_workers_per_gather=0")
    with (
        postgresql.running(folder, *alone) as database_port,
        redis_server.running(folder) as redis_port,
    ):
        database = f"postgresql://postgres@127.0.0.1:{database_port}/postgres"
        fill(database, with_index="slow_jobs" not in planted)
        upstream, depot = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        environment = os.environ | {
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "DEPOT_PROBLEMS": ",".join(planted),
            "DEPOT_DATABASE": database,
            "DEPOT_REDIS_PORT": str(redis_port),
            "DEPOT_UPSTREAM": upstream,
        }
        # As the helpdesk's: they only answer after a while.
        behind = ["uvicorn", "bench.helpdesk.upstream:app", "--port", upstream.rpartition(":")[2]]
        application = ["bench.depot.app", depot.rpartition(":")[2]]
        with (
            served([*behind, "--log-level", "warning"], upstream, environment),
            served(application, f"{depot}/ready", environment, capture),
        ):
            yield depot


DEPOT = Service(PROBLEMS, _VISITS, _running)
"""aiohttp with a worker on its loop, asyncpg, SQLAlchemy's async ORM, redis.asyncio, pydantic."""
