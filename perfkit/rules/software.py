"""Which software a capture shows, so that recommendations name settings that exist there."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from perfkit.analysis.code.call_paths import importing

ALWAYS = frozenset(("Python", "Linux"))
"""What every capture is about; its settings are named beside those of what was seen."""

_CONTAINERS = frozenset(("Docker", "Kubernetes"))

_SIGNS: dict[str, str] = {
    "SQLAlchemy": r"sqlalchemy",
    "Django": r"django",
    "psycopg": r"psycopg",
    "asyncpg": r"asyncpg",
    "httpx": r"httpx|httpcore",
    "requests": r"requests|urllib3",
    "aiohttp": r"aiohttp",
    "Redis": r"redis|valkey",
    "Celery": r"celery",
    "gunicorn": r"gunicorn",
    "uvicorn": r"uvicorn",
    "Starlette": r"starlette|fastapi|anyio",
    "pydantic": r"pydantic",
    "PostgreSQL": r"postgres|psycopg|asyncpg",
    "MySQL": r"mysql|mariadb",
    "SQLite": r"sqlite",
    "MongoDB": r"mongo",
    "Node.js": r"^@opentelemetry/",
    "MCP gateway": r"mcp-?gateway|contextforge",
}
"""Name -> what an instrumentation scope, a module or a database system of it looks like."""

NAMES = (*sorted(ALWAYS), *_SIGNS, *sorted(_CONTAINERS))
"""The software whose settings a rule may name."""


def _modules(paths: pl.DataFrame) -> pl.LazyFrame:
    """Return the packages of code that ran, as `text`; what was only imported may be in no use."""
    ran = paths.filter(~pl.Series(importing(paths)))
    return ran.lazy().select(pl.col("module").str.split(".").list.first().alias("text"))


def seen(tables: Mapping[str, pl.LazyFrame]) -> frozenset[str]:
    """Return the names of the software that spans, stacks and metrics give away."""
    texts = [
        tables["spans"].select(pl.col("scope").alias("text")),
        tables["spans"].select(pl.col("db_system").alias("text")),
        tables["spans"].select(pl.col("service").alias("text")),
        _modules(tables["call_paths"].collect()),
    ]
    traces = pl.concat(
        [one.drop_nulls().unique() for one in texts], how="vertical_relaxed"
    ).collect()["text"]
    lowered = traces.str.to_lowercase()
    found = {name for name, sign in _SIGNS.items() if lowered.str.contains(sign).any()}
    limits = tables["metrics"].filter(pl.col("name").str.starts_with("container.")).head(1)
    return frozenset(found | ALWAYS | (frozenset() if limits.collect().is_empty() else _CONTAINERS))
