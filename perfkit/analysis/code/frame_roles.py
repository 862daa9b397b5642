"""What a code location means for waiting, judged by its file and function alone.

A profiler sees Python frames. A call into C (taking a bare lock, reading a socket, sleeping) shows
only as the Python function that makes it, so the role of a frame says what it means when that frame
is the innermost one or, for pools and workers, when it is an ancestor.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import polars as pl

_ROLES: tuple[tuple[str, str, str], ...] = (
    # role, end of the file's path (pattern), last part of the function's name (pattern)
    ("callback", r"asyncio/events\.py", r"_run"),
    ("loop", r"asyncio/base_events\.py", r"run_forever|run_until_complete|_run_once"),
    ("native loop", r"(?:asyncio/runners|uvloop/__init__)\.py", r"run"),
    ("select", r"(?:^|/)selectors\.py", r"select"),
    ("worker", r"concurrent/futures/thread\.py", r"_worker"),
    ("worker", r"anyio/_backends/_asyncio\.py", r"run"),
    ("pool", r"sqlalchemy/pool/impl\.py", r"_do_get"),
    ("pool", r"psycopg_pool/(?:null_)?pool\.py", r"getconn|_getconn\w*|connection"),
    ("pool", r"psycopg_pool/_acompat\.py", r"wait"),
    ("pool", r"httpcore/_sync/connection_pool\.py", r"wait_for_connection"),
    ("pool", r"urllib3/connectionpool\.py", r"_get_conn"),
    ("pool", r"redis/connection\.py", r"get_connection"),
    ("pool", r"pymongo/(?:synchronous/)?pool\.py", r"checkout|_get_conn"),
    ("pool", r"dbutils/pooled_db\.py", r"connection|_wait_lock"),
    ("queue", r"(?:^|/)queue\.py|sqlalchemy/util/queue\.py", r"get|put"),
    ("queue", r"multiprocessing/queues\.py", r"get|put"),
    ("lock", r"(?:^|/)threading\.py", r"acquire|(?:_RLock|\w*Semaphore)\.__enter__"),
    ("lock", r"(?:^|/)logging/__init__\.py", r"acquire"),
    ("lock", r"importlib\._bootstrap>?", r"acquire|_get_module_lock"),
    ("lock", r"multiprocessing/synchronize\.py", r"acquire|__enter__"),
    (
        "condition",
        r"(?:^|/)threading\.py",
        r"wait|wait_for|_acquire_restore|join|_wait_for_\w+",
    ),
    ("condition", r"concurrent/futures/_base\.py", r"result|exception|wait|as_completed"),
    ("io", r"(?:^|/)socket\.py", r"accept|connect|recv\w*|send\w*|readinto|create_\w+|getaddrinfo"),
    ("io", r"(?:^|/)ssl\.py", r"read|write|recv\w*|send\w*|do_handshake|connect|accept|unwrap"),
    ("io", r"(?:^|/)subprocess\.py", r"_?wait|_try_wait|_?communicate|_execute_child"),
    ("io", r"http/client\.py", r"send|_read_\w+|read|readinto"),
    ("io", r"asyncio/selector_events\.py", r"write|_write_\w+|_read_\w+|_sock_\w+"),
    ("io", r"multiprocessing/connection\.py", r"_?recv\w*|_?send\w*|_?poll|wait"),
    ("io", r"sqlalchemy/engine/default\.py", r"do_\w+"),
    ("io", r"sqlalchemy/engine/cursor\.py", r"_?fetch\w*|_raw_all_rows"),
    (
        "io",
        r"(?:psycopg2?|pymysql|MySQLdb|oracledb|pyodbc|sqlite3)/[^/]+\.py",
        r".*",
    ),
    ("io", r"httpcore/_backends/\w+\.py", r"read|write|connect_\w+|start_tls"),
    ("io", r"httpcore/_utils\.py", r"is_socket_readable"),
    ("io", r"urllib3/util/(?:connection|ssl_|wait|ssltransport)\.py", r".*"),
    ("io", r"(?:redis|pymongo)/[\w/]*(?:connection|network|socket|_parsers/\w+)\.py", r".*"),
    ("io", r"grpc/_channel\.py", r"_blocking|_next|result"),
    ("io", r"opentelemetry/exporter/.*\.py", r"_export|export"),
)
"""The first role that matches wins. Sources: the files named, in the releases current in 2025."""

_HANDLERS: tuple[tuple[str, str], ...] = (
    (r"(?:^|/)socketserver\.py", r"process_request(?:_thread)?|finish_request"),
    (r"(?:^|/)http/server\.py", r"handle_one_request"),
    (r"(?:^|/)wsgiref/handlers\.py", r"run"),
    (r"werkzeug/serving\.py", r"run_wsgi"),
    (r"gunicorn/workers/\w+\.py", r"handle(?:_request)?"),
    (r"waitress/task\.py", r"service|execute"),
    (r"cheroot/\w+\.py", r"communicate|respond"),
    (r"flask/app\.py", r"__call__|wsgi_app|full_dispatch_request|dispatch_request"),
    (r"django/core/handlers/\w+\.py", r"__call__|_?get_response"),
    (r"bottle\.py", r"__call__|wsgi|_handle"),
    (r"falcon/app\.py", r"__call__"),
    (r"pyramid/router\.py", r"__call__|invoke_request|handle_request"),
    (r"grpc/_server\.py", r"_call_behavior|_(?:unary|stream)_response_in_pool"),
    (r"anyio/_backends/_asyncio\.py", r"run"),
    (r"celery/app/trace\.py", r"trace_task|__protected_call__"),
    (r"rq/(?:job|worker/\w+|worker)\.py", r"perform(?:_job)?"),
    (r"dramatiq/worker\.py", r"process_message"),
)
"""Functions of servers and frameworks below which runs what one request or job asked for; of AnyIO
the worker that FastAPI and Starlette call plain functions in. `concurrent.futures` has none: what
a program gives to a pool may be meant to go on. Sources: the files named, as of 2025."""

# fmt: off
_FRAMEWORKS = frozenset(
    (
        "aiohttp", "aiokafka", "aiosqlite", "anyio", "asgiref", "asyncpg", "billiard", "boto3",
        "botocore", "celery", "certifi", "click", "concurrent", "cryptography", "dask", "django",
        "dramatiq", "fastapi", "flask", "gevent", "google", "granian", "greenlet", "grpc",
        "gunicorn", "h11", "h2", "hpack", "httpcore", "httptools", "httpx", "hypercorn", "jinja2",
        "jwt", "kafka",
        "kombu", "markupsafe", "mcp", "motor", "msgpack", "MySQLdb", "mysql", "numpy",
        "opentelemetry", "oracledb", "orjson", "pandas", "pip", "polars", "prometheus_client",
        "psycopg", "psycopg2", "psycopg_pool", "pyarrow", "pydantic", "pydantic_core",
        "pydantic_settings", "pymongo", "pymysql", "pyodbc", "redis", "requests", "rich",
        "sentry_sdk", "sniffio", "sqlalchemy", "sqlmodel", "sse_starlette", "starlette",
        "starlette_compress", "tornado", "tracing", "trio", "typer", "urllib3", "uvicorn",
        "uvloop", "watchfiles", "websockets", "werkzeug", "wrapt", "yaml", "zmq",
    )
)
# fmt: on
"""Top-level packages that serve a program rather than being it (a list of our own).

An installed program lives in site-packages beside its libraries, so the path cannot tell them
apart.
"""

PRIMITIVES = ("condition", "queue", "lock")
"""Roles of what a thread blocks in for another thread's sake."""

LOOP_ROLES = ("callback", "loop", "native loop")
"""Roles of the frames of an event loop itself."""

IDLE_LEAVES = ("select", "worker", "queue", "condition")
"""Roles of an innermost frame that cannot but wait; enough where no thread state was recorded."""


@cache
def role() -> pl.Expr:
    """Return the role of a frame with the columns `function` and `file`, as text; mostly null."""
    expression = pl.lit(None, dtype=pl.String)
    for name in reversed(dict.fromkeys(name for name, _, _ in _ROLES)):
        # One pattern a role: Polars compiles each, and keeps few.
        matches = _stands_at((file, function) for known, file, function in _ROLES if known == name)
        expression = pl.when(matches).then(pl.lit(name)).otherwise(expression)
    return expression


@cache
def handles() -> pl.Expr:
    """Return whether a frame, by its `function` and `file`, serves one request or job."""
    return _stands_at(_HANDLERS)


def _stands_at(places: Iterable[tuple[str, str]]) -> pl.Expr:
    """Return whether a frame is one of those at places: a file's end, a function's last part."""
    place = pl.concat_str(
        pl.col("file").fill_null("").str.replace_all("\\", "/", literal=True),
        pl.lit("\n"),
        pl.col("function").fill_null(""),
    )
    return place.str.contains(
        "|".join(rf"(?:{file})\n(?:.*\.)?(?:{function})$" for file, function in places)
    )


@cache
def own() -> pl.Expr:
    """Return whether a frame is the program's own code, by its `category` and `module`."""
    package = pl.col("module").fill_null("").str.split(".").list.first()
    served = (pl.col("category") == "library") & ~package.is_in(list(_FRAMEWORKS))
    # Libraries generate code under names such as `<string>`; nobody can mend it there.
    written = ~pl.col("file").fill_null("<").str.starts_with("<") & (pl.col("file") != "")
    return (((pl.col("category") == "app") | served) & written).fill_null(False)
