"""What is planted in the depot, and which of the rules' families should name it.

Chosen from the catalogue of rules, before a look at how the rules find it: what is known of threads
and of requests, where there is an event loop, and a worker that no request waits for. Rules that
were written by what it showed stand there too: `calls.one-at-a-time` and `py.validator-build`.
"""

from __future__ import annotations

from bench.planted.problem import Problem

PROBLEMS = (
    Problem(
        "serial_queries",
        "/summary",
        "four independent queries are awaited one by one",
        ("calls.serial", "db.consecutive"),
        ("summary",),
    ),
    Problem(
        "sync_driver",
        "/inventory",
        "an async handler asks the database through a driver that blocks",
        ("py.event-loop",),
        ("inventory",),
    ),
    Problem(
        "lazy_lines",
        "/orders",
        "each order's lines are awaited one by one from the ORM",
        ("db.n-plus",),
        ("lines",),
    ),
    Problem(
        "default_executor",
        "/customs",
        "bursts of calls that block, in the few threads that a loop has by itself",
        ("pool.executor", "pool.exhausted"),
        ("customs", "Executor", "asyncio"),
    ),
    Problem(
        "async_lock",
        "/reserve",
        "an asyncio.Lock is held while upstream is asked",
        ("py.lock-contention", "calls.one-at-a-time"),
        ("reserve",),
    ),
    Problem(
        "validator_per_line",
        "/delivery",
        "pydantic builds a validator anew for every line",
        ("py.hot-function", "py.event-loop", "py.validator-build"),
        ("delivery", "pydantic"),
    ),
    Problem(
        "polling",
        "/label",
        "Redis is asked every few milliseconds whether a job is done",
        ("db.chatty", "db.redundant", "calls.chatty", "calls.poll", "cache.repeated"),
        ("label", "redis", "GET"),
    ),
    Problem(
        "slow_jobs",
        "/pack",
        "the worker looks up scans by a column without an index",
        ("db.slow", "db.missing-index", "queue."),
        ("scans", "pack"),
    ),
)
"""All planted problems."""
