"""Run by the Python of a program that is to be recorded: what OpenTelemetry it has. Prints JSON.

Standard library only: perfkit may be installed elsewhere.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys

NEEDED = {
    "opentelemetry.distro": "opentelemetry-distro",
    "opentelemetry.instrumentation.auto_instrumentation": "opentelemetry-distro",
    "opentelemetry.exporter.otlp.proto.http": "opentelemetry-exporter-otlp-proto-http",
}
"""Module -> distribution without which nothing is instrumented."""

INSTRUMENTATIONS = {
    "aiohttp": ("aiohttp-client", "aiohttp-server"),
    "asyncpg": ("asyncpg",),
    "celery": ("celery",),
    "django": ("django",),
    "fastapi": ("fastapi",),
    "flask": ("flask",),
    "httpx": ("httpx",),
    "psycopg": ("psycopg",),
    "psycopg2": ("psycopg2",),
    "pymongo": ("pymongo",),
    "pymysql": ("pymysql",),
    "redis": ("redis",),
    "requests": ("requests",),
    "sqlalchemy": ("sqlalchemy",),
    "starlette": ("starlette",),
    "urllib3": ("urllib3",),
}
"""Library -> the ends of the names of its `opentelemetry-instrumentation-…`."""


def installed(module: str) -> bool:
    """Whether a module can be imported; imports its parents."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def refused() -> list[str]:
    """Return the libraries that an instrumentation leaves out because of their version.

    It says so only in a log, which many programs do not show.
    """
    try:
        from opentelemetry.instrumentation.dependencies import get_dist_dependency_conflicts
    except ImportError:
        return []
    said = []
    for name in sorted({name for names in INSTRUMENTATIONS.values() for name in names}):
        distribution = f"opentelemetry-instrumentation-{name}"
        try:
            conflict = get_dist_dependency_conflicts(importlib.metadata.distribution(distribution))
        except importlib.metadata.PackageNotFoundError:
            continue
        found = getattr(conflict, "found", None)
        if found:
            needed = str(getattr(conflict, "required", "")).partition(";")[0].strip()
            said.append(f"{found} ({distribution} takes {needed})")
    return said


def look() -> dict[str, object]:
    """Return what is missing, and which libraries would give no spans."""
    missing = sorted({name for module, name in NEEDED.items() if not installed(module)})
    silent = [
        f"opentelemetry-instrumentation-{name}"
        for library, names in INSTRUMENTATIONS.items()
        for name in names
        if installed(library)
        and not installed(f"opentelemetry.instrumentation.{name.replace('-', '_')}")
        # FastAPI's instrumentation covers the Starlette that is below it.
        and not (library == "starlette" and installed("fastapi"))
    ]
    return {
        "executable": sys.executable,
        "version": list(sys.version_info[:2]),
        "missing": missing,
        "silent": silent,
        "refused": refused(),
        "pip": installed("pip"),
        "django": installed("django"),
    }


if __name__ == "__main__":
    print(json.dumps(look()))
