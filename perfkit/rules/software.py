"""Which software a capture shows, so that recommendations name settings that exist there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from perfkit.analysis.code.call_paths import importing

_SDK = {
    "python": "Python",
    "nodejs": "Node.js",
    "java": "Java",
    "go": "Go",
    "dotnet": ".NET",
    "ruby": "Ruby",
    "php": "PHP",
    "rust": "Rust",
    "cpp": "C++",
    "erlang": "Erlang",
    "webjs": "browser",
    "swift": "Swift",
}
"""telemetry.sdk.language -> its name:
https://opentelemetry.io/docs/specs/semconv/resource/#telemetry-sdk"""

_SCOPES = {
    "Python": r"^opentelemetry\.",
    "Node.js": r"^@opentelemetry/",
    "Java": r"^io\.opentelemetry\.",
    "Go": r"^go\.opentelemetry\.io/",
    ".NET": r"^OpenTelemetry\.|^System\.Net\.|^Microsoft\.AspNetCore",
}
"""What a language's instrumentations call themselves."""

_METRICS = {
    "Python": r"^(?:process\.runtime\.)?cpython\.",
    "Node.js": r"^(?:nodejs|v8js)\.",
    "Java": r"^(?:process\.runtime\.)?jvm\.",
    "Go": r"^(?:process\.runtime\.)?go\.",
    ".NET": r"^dotnet\.",
}
"""What a language's runtime calls its metrics."""

_FILES = {
    "Python": r"\.pyx?$",
    "Node.js": r"\.[cm]?[jt]sx?$|^node:",
    "Java": r"\.(?:java|kt|scala)$",
    "Go": r"\.go$",
    ".NET": r"\.cs$",
}
"""What its source files are called."""

_GENERAL = ("Linux", "OpenTelemetry")
"""What every capture is about."""

_DEFAULT = "Python"
"""What most recorded programs are written in: taken where nothing says another language."""

_CONTAINERS = frozenset(("Docker", "Kubernetes"))

_SIGNS: dict[str, tuple[str | None, str]] = {
    "SQLAlchemy": ("Python", r"sqlalchemy"),
    "Django": ("Python", r"django"),
    "psycopg": ("Python", r"psycopg"),
    "asyncpg": ("Python", r"asyncpg"),
    "httpx": ("Python", r"httpx|httpcore"),
    "requests": ("Python", r"requests|urllib3"),
    "aiohttp": ("Python", r"aiohttp"),
    "redis-py": ("Python", r"redis|valkey"),
    "Celery": ("Python", r"celery"),
    "Dramatiq": ("Python", r"dramatiq"),
    "gunicorn": ("Python", r"gunicorn"),
    "uvicorn": ("Python", r"uvicorn"),
    "Starlette": ("Python", r"starlette|fastapi|anyio"),
    "pydantic": ("Python", r"pydantic"),
    "MCP gateway": ("Python", r"mcp-?gateway|contextforge"),
    "pg": ("Node.js", r"instrumentation-pg$"),
    "ioredis": ("Node.js", r"instrumentation-ioredis$"),
    "undici": ("Node.js", r"instrumentation-undici$"),
    "node:http": ("Node.js", r"instrumentation-http$"),
    "Express": ("Node.js", r"instrumentation-express$"),
    "HikariCP": ("Java", r"hikari"),
    "database/sql": ("Go", r"otelsql|/database/sql"),
    "PostgreSQL": (None, r"postgres|psycopg|asyncpg"),
    "MySQL": (None, r"mysql|mariadb"),
    "SQLite": (None, r"sqlite"),
    "MongoDB": (None, r"mongo"),
    "Redis": (None, r"redis|valkey"),
}
"""Name -> its language, where it is a library of one, and what an instrumentation scope, a module
or a database system of it looks like."""

_STORES = frozenset(name for name, (language, _) in _SIGNS.items() if language is None)
LANGUAGES = tuple(_SCOPES)
NAMES = (*sorted((*_GENERAL, *LANGUAGES)), *_SIGNS, *sorted(_CONTAINERS))
"""The software whose settings a rule may name."""

ALWAYS = frozenset((*_GENERAL, *LANGUAGES))
"""What leaves no trace of its own; its settings are named beside those of what was seen."""


@dataclass(frozen=True)
class Software:
    """What was seen: names of software and, among them, of languages."""

    names: frozenset[str]
    languages: frozenset[str]
    of_service: Mapping[str, frozenset[str]]
    """Service -> its languages, where they are known."""

    def fits(self, name: str) -> bool:
        """Return whether some program that was seen can have `name`.

        That is what is of its language; of databases only those that were seen, if any was.
        """
        language = name if name in LANGUAGES else _SIGNS.get(name, (None, ""))[0]
        if name in _STORES:
            return name in self.names or not _STORES & self.names
        return language is None or language in self.languages

    def of(self, service: object) -> Software:
        """Return what concerns one service; all where its language is not known."""
        languages = self.of_service.get(service) if isinstance(service, str) else None
        if not languages:
            return self
        narrow = Software(self.names, languages, {})
        names = frozenset(filter(narrow.fits, self.names | languages))
        return Software(names, languages, self.of_service)


def seen(tables: Mapping[str, pl.LazyFrame]) -> Software:
    """Return the software that spans, stacks and metrics give away."""
    of_service = _languages(tables)
    files = tables["frames"].select("file").drop_nulls().unique().collect()["file"]
    languages = frozenset().union(*of_service.values(), _matching(_FILES, files))
    languages = languages or frozenset((_DEFAULT,))
    fitting = Software(frozenset(), languages, of_service)
    lowered = _traces(tables).str.to_lowercase()
    signs = lowered.to_frame().select(
        pl.col("text").str.contains(sign).any().alias(name)
        for name, (_, sign) in _SIGNS.items()
        if fitting.fits(name)
    )
    names = {name for name in signs.columns if signs[name].item()}
    limits = tables["metrics"].filter(pl.col("name").str.starts_with("container.")).head(1)
    found = frozenset((*names, *languages, *_GENERAL))
    return Software(
        found if limits.collect().is_empty() else found | _CONTAINERS, languages, of_service
    )


def languages(tables: Mapping[str, pl.LazyFrame]) -> frozenset[str]:
    """Return the languages that spans and metrics give away."""
    return frozenset().union(*_languages(tables).values())


def _traces(tables: Mapping[str, pl.LazyFrame]) -> pl.Series:
    """Return the texts that software leaves its name in."""
    texts = [
        tables["spans"].select(pl.col("scope").alias("text")),
        tables["spans"].select(pl.col("db_system").alias("text")),
        tables["spans"].select(pl.col("service").alias("text")),
        _modules(tables["call_paths"].collect()),
    ]
    unique = [one.drop_nulls().unique() for one in texts]
    return pl.concat(unique, how="vertical_relaxed").collect()["text"]


def _modules(paths: pl.DataFrame) -> pl.LazyFrame:
    """Return the packages of code that ran, as `text`; what was only imported may be in no use."""
    ran = paths.filter(~pl.Series(importing(paths)))
    return ran.lazy().select(pl.col("module").str.split(".").list.first().alias("text"))


def _languages(tables: Mapping[str, pl.LazyFrame]) -> dict[str, frozenset[str]]:
    """Return the languages of each service; those of programs without a name are under ''."""
    service = pl.col("service").fill_null("")
    sdk = pl.col("resource").drop_nulls().first()
    said = (
        tables["spans"]
        .group_by(service)
        .agg(
            language=sdk.str.json_path_match('$["telemetry.sdk.language"]'),
            scopes=pl.col("scope").drop_nulls().unique(),
        )
    )
    named = tables["metrics"].group_by(service).agg(names=pl.col("name").unique())
    found: dict[str, frozenset[str]] = {}
    for name, language, scopes in said.collect().iter_rows():
        scoped = _matching(_SCOPES, pl.Series(scopes, dtype=pl.String))
        found[name] = frozenset((_SDK.get(language, language),)) if language else scoped
    for name, metrics in named.collect().iter_rows():
        of_runtime = _matching(_METRICS, pl.Series(metrics, dtype=pl.String))
        found[name] = found.get(name) or of_runtime
    return {name: languages for name, languages in found.items() if languages}


def _matching(signs: Mapping[str, str], texts: pl.Series) -> frozenset[str]:
    return frozenset(
        name for name, sign in signs.items() if any(re.search(sign, text) for text in texts)
    )
