"""What is planted in the theatre, and which of the rules' families should name it.

Chosen from the catalogue of rules and written down before anything was recorded.
"""

from __future__ import annotations

from bench.planted.problem import Problem

PROBLEMS = (
    Problem(
        "held_connection",
        "/book",
        "a transaction stays open while the payment service is awaited, in a pool of four",
        ("pool.", "db.transaction"),
        ("book",),
    ),
    Problem(
        "price_per_seat",
        "/seats",
        "the price of each seat is asked over HTTP, awaited one by one",
        ("calls.n-plus-one", "calls.serial", "calls.chatty"),
        ("seats", "carriers"),
    ),
    Problem(
        "key_per_show",
        "/shows",
        "what is left of each show is read from Redis key by key",
        ("cache.key-by-key", "db.chatty", "calls.chatty"),
        ("shows", "redis", "GET"),
    ),
    Problem(
        "row_by_row",
        "/reprint",
        "forty tickets are inserted one by one",
        ("db.row-by-row", "db.chatty"),
        ("reprint", "tickets"),
    ),
    Problem(
        "whole_table",
        "/takings",
        "all sales are loaded as objects to add them up in Python",
        ("py.orm-hydration", "db.too-many-rows", "py.event-loop"),
        ("takings", "sales", "sqlalchemy"),
    ),
    Problem(
        "password",
        "/login",
        "scrypt runs on the event loop",
        ("py.password-hash", "py.event-loop"),
        ("login", "scrypt"),
    ),
    Problem(
        "deep_page",
        "/history",
        "pages far behind are reached by OFFSET",
        ("db.deep-offset", "db.slow-query"),
        ("history", "sales", "OFFSET"),
    ),
    Problem(
        "background",
        "/poster",
        "a poster is packed after the answer, on the event loop",
        ("py.event-loop", "py.compression", "py.hot-function"),
        ("poster", "compress", "zlib"),
    ),
)
"""All planted problems."""
