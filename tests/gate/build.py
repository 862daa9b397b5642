"""Runs of a made-up service: each endpoint's latency, errors and queries, times the run's luck."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perfkit.capture import CaptureWriter
from tests.analysis.build import S, span_columns

MS = 1_000_000
START = 1_795_416_395_000_000_000


def record(
    path: Path,
    endpoints: Mapping[str, float],
    *,
    seed: int = 0,
    requests: int = 40,
    noise: float = 0.02,
    errors: float = 0.0,
    queries: int = 1,
    sampling: dict[str, Any] | None = None,
    **tables: Any,
) -> Path:
    """Write a capture in which each endpoint takes about so many ms; one request in 10 a bit more.

    `noise` is that of the whole run; the requests of one run differ little beside it.
    """
    luck = random.Random(seed)
    factor = 1 + luck.gauss(0, noise)
    spans = []
    for place, (endpoint, mean_ms) in enumerate(endpoints.items()):
        for number in range(requests):
            start = START + (number * len(endpoints) + place) * 50 * MS
            length = round(mean_ms * MS * factor * (1.3 if number % 10 == 0 else 1.0))
            span_id, trace = len(spans) + 1, len(spans) + 1
            part = length // (queries + 1)
            status = "error" if luck.random() < errors else "unset"
            spans.append(
                S(
                    span_id,
                    start,
                    start + length,
                    None,
                    trace,
                    kind="server",
                    name=endpoint,
                    endpoint=endpoint,
                    status=status,
                    http_method=endpoint.split()[0],
                )
            )
            for query in range(queries):
                spans.append(
                    S(
                        len(spans) + 1,
                        start + query * part,
                        start + (query + 1) * part,
                        span_id,
                        trace,
                        kind="client",
                        db_system="sqlite",
                        db_statement="SELECT 1",
                        name="SELECT",
                    )
                )
    with CaptureWriter(path, command=["test"]) as writer:
        writer.append("spans", span_columns(spans))
        for name, columns in tables.items():
            writer.append(name, columns)
        writer.info.sampling = sampling or {}
    return path


def runs(
    folder: Path, name: str, count: int, endpoints: Mapping[str, float], **options: Any
) -> list[str]:
    """Write several runs; return their paths."""
    first = options.pop("seed", 0)
    return [
        str(record(folder / f"{name}{number}.perfkit", endpoints, seed=first + number, **options))
        for number in range(count)
    ]
