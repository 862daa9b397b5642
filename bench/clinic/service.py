"""The clinic as it runs: what is behind it, and who visits it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import postgresql, redis_server
from bench.clinic.database import fill
from bench.clinic.problems import PROBLEMS
from bench.planted.load import Visit
from bench.planted.record import Service, served
from bench.postgresql import free_port

_VISITS: tuple[Visit, ...] = (
    (6, 1, lambda r: f"/agenda?first={r.randint(1, 90000)}"),
    (6, 1, lambda r: f"/patients?first={r.randint(1, 19000)}"),
    (6, 1, lambda r: f"/results?sample=S{r.randrange(200_000)}"),
    (6, 1, lambda r: f"/cupboard?shelf={r.randrange(20)}"),
    (6, 1, lambda r: f"/statistics?kind={r.randrange(130)}"),
    (6, 1, lambda r: f"/calendar?first={r.randrange(3)}"),
    (6, 1, lambda r: f"/tariff?treatment={r.randint(1, 400)}"),
    (8, 1, lambda r: f"/doctor?doctor={r.randint(1, 40)}"),
    (8, 1, lambda r: f"/insurance?patient={r.randint(1, 20000)}"),
    (2, 4, lambda r: f"/book?doctor={r.randint(1, 2)}&patient={r.randint(1, 20000)}"),
    (6, 1, lambda r: f"/report?patient={r.randint(1, 20000)}"),
    (4, 1, lambda r: f"/referral?patient={r.randint(1, 20000)}"),
    (6, 1, lambda r: f"/reminder?patient={r.randint(1, 20000)}"),
    (6, 1, lambda r: f"/consents?patient={r.randint(1, 20000)}"),
    (4, 1, lambda r: f"/portal?token={r.randrange(10**9)}"),
    (4, 1, lambda r: f"/busiest?after={r.randint(70_000, 85_000)}"),
)


@contextmanager
def behind(folder: Path, planted: Collection[str]) -> Iterator[dict[str, str]]:
    """Run all that the clinic needs; give the environment that it is to be started in."""
    with (
        postgresql.running(folder) as database_port,
        redis_server.running(folder) as redis_port,
    ):
        fill(database_port, with_index="no_index" not in planted)
        upstream = f"http://127.0.0.1:{free_port()}"
        environment = os.environ | {
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "DJANGO_SETTINGS_MODULE": "bench.clinic.settings",
            "CLINIC_PROBLEMS": ",".join(planted),
            "CLINIC_DATABASE_PORT": str(database_port),
            "CLINIC_REDIS_PORT": str(redis_port),
            "CLINIC_UPSTREAM": upstream,
            "UPSTREAM_FAILS": "1" if "retries" in planted else "",
        }
        # As the helpdesk's: they only answer after a while.
        others = ["uvicorn", "bench.helpdesk.upstream:app", "--port", upstream.rpartition(":")[2]]
        with served([*others, "--log-level", "warning"], upstream, environment):
            yield environment


@contextmanager
def _running(capture: Path, folder: Path, planted: Collection[str]) -> Iterator[str]:
    clinic = f"http://127.0.0.1:{free_port()}"
    with (
        behind(folder, planted) as environment,
        served(["bench.clinic.start", clinic[7:]], f"{clinic}/ready", environment, capture),
    ):
        yield clinic


CLINIC = Service(PROBLEMS, _VISITS, _running)
"""Django under gunicorn with processes and threads, psycopg, Django's cache in Redis, Celery."""
