"""What is planted: one table of problems, and which of them are present in this process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One planted problem."""

    name: str
    """What the switches `--mend` and `--only` call it."""
    affects: tuple[str, ...]
    """The tools and endpoints that it slows, named as the load generator names them."""
    wrong: str
    mended: str
    found_by: tuple[str, ...]
    """The families of rules that should find it."""


PROBLEMS = (
    Problem(
        "cache",
        ("database-query",),
        "the same aggregate is computed for every call, though the arguments hardly vary",
        "results are kept for a minute, by arguments",
        ("cache.repeated-tool-call", "db.redundant-query"),
    ),
    Problem(
        "pool",
        ("check-stock",),
        "the inventory engine has one connection, and four calls arrive at once",
        "the pool has as many connections as there are worker threads",
        ("pool.wait", "pool.exhausted"),
    ),
    Problem(
        "n_plus_one",
        ("list-orders", "GET /users/{user_id}/orders"),
        "the items of every order are loaded lazily, with one query per order",
        "all items are loaded with one further query",
        ("db.n-plus-one",),
    ),
    Problem(
        "index",
        ("search-documents",),
        "citations are counted per document without an index on the column that is looked up",
        "the index exists",
        ("db.slow-query", "db.missing-index-suspect"),
    ),
    Problem(
        "serial",
        ("plan-trip",),
        "four independent upstream calls wait for one another",
        "they run side by side",
        ("calls.serial-parallelisable",),
    ),
    Problem(
        "blocking",
        ("render-report", "current-time", "GET /health"),
        "an async tool calls upstream with the synchronous client, and so stops the event loop "
        "for every request",
        "it awaits the asynchronous client",
        ("py.event-loop-blocked",),
    ),
    Problem(
        "hot_code",
        ("weather",),
        "a client is made for every request, and with it a TLS context, which parses the whole "
        "certificate bundle",
        "one client, and its TLS context, is shared",
        ("py.hot-function", "net.tls-per-request"),
    ),
    Problem(
        "lock",
        ("reserve-voucher",),
        "a lock is held during an upstream call, so that concurrent callers queue",
        "the lock guards the counter alone",
        ("py.lock-contention",),
    ),
    Problem(
        "leak",
        ("all",),
        "a plugin keeps the transcript of every tool call for ever",
        "it keeps the latest twenty",
        ("mem.growth",),
    ),
)
"""All planted problems."""

NAMES = tuple(problem.name for problem in PROBLEMS)


def select(mend: str | None = None, only: str | None = None) -> frozenset[str]:
    """Return the names of the problems that are present.

    `mend` is `none` (as when nothing is given), `all`, or names joined by commas; `only` is the
    single problem to leave. Raises ValueError for an unknown name, or when both are given.
    """
    mend = mend or "none"
    if only and mend != "none":
        raise ValueError("mend and only exclude each other: give one of them")
    if only:
        return frozenset({_known(only)})
    if mend == "none":
        return frozenset(NAMES)
    if mend == "all":
        return frozenset()
    return frozenset(NAMES) - {_known(name) for name in mend.split(",")}


def _known(name: str) -> str:
    name = name.strip()
    if name not in NAMES:
        raise ValueError(f"there is no problem {name!r}: choose from {', '.join(NAMES)}")
    return name
