"""The helpdesk as it runs: what is behind it, and who visits it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import certifi

from bench import postgresql, redis_server
from bench.helpdesk.database import fill
from bench.helpdesk.problems import PROBLEMS
from bench.planted.load import Visit
from bench.planted.record import Service, served
from bench.postgresql import free_port

_VISITS: tuple[Visit, ...] = (
    (6, 1, lambda r: f"/tickets?first={r.randint(1, 19000)}"),
    (6, 1, lambda r: f"/messages?ticket={r.randint(1, 20000)}"),
    (8, 1, lambda r: f"/subject?ticket={r.randint(1, 20000)}"),
    (8, 1, lambda r: f"/carrier?parcel={r.randrange(10**6)}"),
    (1, 6, lambda r: "/dashboard"),
    (6, 1, lambda r: "/quote"),
    (2, 4, lambda r: f"/parcel?parcel={r.randrange(10**6)}"),
    (8, 1, lambda r: f"/shipping?parcel={r.randrange(10**6)}"),
    (6, 1, lambda r: f"/tag?ticket={r.randint(1, 20000)}"),
    (6, 1, lambda r: f"/transcript?ticket={r.randint(1, 20000)}"),
    (8, 1, lambda r: f"/search?word={r.choice(['bike', 'lamp'])}&visit={r.randrange(10**6)}"),
    (4, 1, lambda r: "/export"),
    (6, 1, lambda r: "/attachment"),
    (6, 1, lambda r: f"/flags?customer={r.randint(1, 5000)}"),
    (4, 1, lambda r: "/profile"),
    (6, 1, lambda r: "/price"),
)


@contextmanager
def _running(capture: Path, folder: Path, planted: Collection[str]) -> Iterator[str]:
    key, own = _certificate(folder)
    trusted = folder / "trusted.pem"
    trusted.write_text(Path(certifi.where()).read_text() + own.read_text())
    upstream, desk = f"https://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    with postgresql.running(folder) as database_port, redis_server.running(folder) as redis_port:
        fill(database_port, with_index="no_index" not in planted)
        environment = os.environ | {
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "REQUESTS_CA_BUNDLE": str(trusted),
            "DJANGO_SETTINGS_MODULE": "bench.helpdesk.settings",
            "HELPDESK_PROBLEMS": ",".join(planted),
            "HELPDESK_DATABASE_PORT": str(database_port),
            "HELPDESK_REDIS_PORT": str(redis_port),
            "HELPDESK_UPSTREAM": upstream,
            "HELPDESK_LOG": str(folder / "helpdesk.log"),
            "UPSTREAM_FAILS": "1" if "retries" in planted else "",
        }
        behind = ["uvicorn", "bench.helpdesk.upstream:app", "--port", upstream.rpartition(":")[2]]
        behind += ["--log-level", "warning", "--ssl-keyfile", str(key), "--ssl-certfile", str(own)]
        application = ["gunicorn", "bench.helpdesk.wsgi:application", "--bind", desk[7:]]
        application += ["--workers", "2", "--threads", "8", "--worker-class", "gthread"]
        with (
            served(behind, upstream, environment),
            served(application, f"{desk}/ready", environment, capture),
        ):
            yield desk


def _certificate(folder: Path) -> tuple[Path, Path]:
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return key, certificate


HELPDESK = Service(PROBLEMS, _VISITS, _running)
"""Django under gunicorn with threads, psycopg2 on PostgreSQL, Redis, requests over TLS."""
