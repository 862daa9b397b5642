"""What is planted in the bookshop, and which of the rules' families should name it.

Chosen from the catalogue of rules, before a look at how the rules find it.
"""

from __future__ import annotations

from bench.planted.problem import Problem

PROBLEMS = (
    Problem("lazy_books", "/authors", "the ORM loads each author's books lazily", ("db.n-plus",)),
    Problem(
        "small_pool",
        "/orders",
        "two connections for bursts of twelve requests",
        ("pool.",),
        ("postgresql",),
    ),
    Problem(
        "no_index",
        "/reviews",
        "reviews are looked up by a column without an index",
        ("db.slow", "db.missing-index"),
        ("reviews",),
    ),
    Problem("serial", "/quote", "four independent upstream calls, one by one", ("calls.serial",)),
    Problem(
        "blocking",
        "/cover",
        "an async handler calls upstream with requests",
        ("py.event-loop",),
        ("cover",),
    ),
    Problem(
        "retries",
        "/shipping",
        "up to five attempts at once at an upstream that fails half of the time",
        ("errors.retry", "errors.hidden"),
        ("Retry calls",),
    ),
    Problem(
        "client_per_call",
        "/tax",
        "a client, with its TLS context and connection, for every call",
        ("py.tls-context", "net.connection-per", "net.connect-in"),
        ("tax",),
    ),
    Problem(
        "connection_per_call",
        "/stock",
        "a database connection is opened for every request",
        ("pool.", "db.connection", "net.connection-per"),
    ),
    Problem("regex", "/search", "patterns are compiled for every book", ("py.regex",), ("search",)),
    Problem("logging", "/basket", "every line of a basket is logged", ("py.logging",), ("basket",)),
    Problem(
        "all_rows",
        "/bestsellers",
        "all sales are fetched, and ten of them shown",
        ("db.too-many", "py.orm-hydration"),
        ("sqlalchemy.orm",),
    ),
    Problem(
        "repeated",
        "/price",
        "the same exchange rate is fetched every time",
        ("cache.",),
        ("rates",),
    ),
)
"""All planted problems."""
