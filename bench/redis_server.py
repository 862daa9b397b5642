"""A Redis of its own for what is measured, from the packages of the system."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from bench.postgresql import free_port


@contextmanager
def running(folder: Path) -> Iterator[int]:
    """Run a server that keeps nothing, started in a folder that exists; give its port."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        patient = Retry(ConstantBackoff(0.1), 100)
        redis.Redis(port=port, retry=patient, retry_on_error=[redis.ConnectionError]).ping()
        yield port
    finally:
        server.terminate()
        server.wait()
