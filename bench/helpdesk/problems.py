"""What is planted in the helpdesk, and which of the rules' families should name it.

Chosen from the catalogue of rules, before a look at how the rules find it.
"""

from __future__ import annotations

from bench.planted.problem import Problem

PROBLEMS = (
    Problem(
        "lazy_customers",
        "/tickets",
        "a template asks for each ticket's customer",
        ("db.n-plus", "db.mn-plus"),
        ("GET tickets", "customers"),
    ),
    Problem(
        "no_index",
        "/messages",
        "messages are looked up by a column without an index",
        ("db.slow", "db.missing-index"),
        ("messages",),
    ),
    Problem(
        "connection_per_request",
        "/subject",
        "CONN_MAX_AGE is 0: each request opens a connection",
        ("pool.connection", "net.connection-per"),
        ("postgresql",),
    ),
    Problem(
        "client_per_call",
        "/carrier",
        "requests.get instead of a session: a TLS context and connection for every call",
        ("py.tls-context", "net.connection-per", "net.connect-in"),
        ("carrier",),
    ),
    Problem(
        "stampede",
        "/dashboard",
        "when what was kept runs out, all who come compute it anew",
        ("cache.stampede",),
        ("messages",),
    ),
    Problem(
        "serial",
        "/quote",
        "three independent upstream calls, one by one",
        ("calls.serial",),
        ("GET quote",),
    ),
    Problem(
        "lock",
        "/parcel",
        "a lock is held while upstream is asked",
        ("py.lock-contention",),
        ("parcel",),
    ),
    Problem(
        "retries",
        "/shipping",
        "up to four more attempts at once at an upstream that mostly fails",
        ("errors.retry", "errors.retries-inside", "errors.hidden"),
        ("shipping", "urllib3"),
    ),
    Problem("row_writes", "/tag", "fifty rows are saved one by one", ("db.row-by-row",), ("tags",)),
    Problem(
        "logging",
        "/transcript",
        "every line of a transcript is logged",
        ("py.logging",),
        ("transcript",),
    ),
    Problem(
        "regex", "/search", "patterns are compiled for every subject", ("py.regex",), ("search",)
    ),
    Problem(
        "export",
        "/export",
        "twenty thousand rows are sent at once",
        ("db.too-many", "py.orm-hydration", "py.serialisation", "net.large", "net.uncompressed"),
        ("export",),
    ),
    Problem(
        "leak", "/attachment", "what was received is never let go", ("mem.growth",), ("gunicorn",)
    ),
    Problem(
        "redis_loop",
        "/flags",
        "sixty keys are read one by one",
        ("cache.key-by-key", "db.n-plus", "db.chatty", "calls.chatty"),
        ("redis",),
    ),
    Problem(
        "password",
        "/profile",
        "a password is hashed for every request",
        ("py.password",),
        ("password",),
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
