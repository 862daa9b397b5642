"""What is planted in the clinic, and which of the rules' families should name it.

Chosen from the names of the rules alone and written down before anything was recorded. Rules that
were written meanwhile, before a look at what it showed, stand there too: `db.row-lock-wait`,
`calls.waits-for-job`, `errors.job-retries` and `queue.at-the-door`.
"""

from __future__ import annotations

from bench.planted.problem import Problem

PROBLEMS = (
    Problem(
        "lazy_keys",
        "/agenda",
        "each visit's doctor and patient are fetched one by one",
        ("db.n-plus", "db.mn-plus", "db.chatty"),
        ("GET agenda", '"doctor"'),
    ),
    Problem(
        "method_field",
        "/patients",
        "a field of a serializer counts each patient's visits",
        ("db.n-plus", "db.mn-plus", "db.chatty"),
        ("GET patients", '"visit"'),
    ),
    Problem(
        "no_index",
        "/results",
        "results are looked up by a column without an index",
        ("db.slow", "db.sequential"),
        ("GET results", '"result"'),
    ),
    Problem(
        "counted_again",
        "/cupboard",
        "the same count is asked four times in a request",
        ("db.redundant", "cache.repeated-query"),
        ("GET cupboard", '"medicine"'),
    ),
    Problem(
        "whole_objects",
        "/statistics",
        "three thousand objects with long texts are loaded to average one column",
        ("db.too-many", "py.orm-hydration"),
        ("statistics", '"result"'),
    ),
    Problem(
        "rendered_anew",
        "/calendar",
        "a large template is rendered anew for every visit",
        ("py.hot-function", "py.template"),
        ("calendar", "render", "template"),
    ),
    Problem(
        "never_kept",
        "/tariff",
        "the same tariffs are fetched every time",
        ("cache.",),
        ("tariff", "rates"),
    ),
    Problem(
        "connection_per_request",
        "/doctor",
        "CONN_MAX_AGE is 0: each request opens a connection",
        ("pool.connection", "net.connection-per", "net.connect-in"),
        ("doctor", "postgresql"),
    ),
    Problem(
        "few_threads",
        "/insurance",
        "one process of two threads waits for upstream while requests queue",
        ("pool.executor", "pool.exhausted", "queue.", "trend.saturation"),
        ("insurance", "gunicorn", "ThreadPool"),
    ),
    Problem(
        "locked_row",
        "/book",
        "a row stays locked while upstream is asked",
        ("db.transaction", "py.lock", "calls.one-at-a-time", "db.row-lock"),
        ("book", "doctor", "FOR UPDATE"),
    ),
    Problem(
        "few_workers",
        "/report",
        "tasks wait in the queue for the only worker",
        ("queue.", "pool.executor", "pool.exhausted"),
        ("report", "celery"),
    ),
    Problem(
        "waits_for_task",
        "/referral",
        "a request waits for the result of a slow task",
        ("queue.", "calls.dominant", "calls.polling", "py.waits", "calls.waits-for-job"),
        ("refer",),
    ),
    Problem(
        "retries",
        "/reminder",
        "a task that fails is tried five more times at once",
        ("errors.retry", "errors.retries-inside", "errors.hidden", "errors.job-retries"),
        ("remind", "shipping"),
    ),
    Problem(
        "key_by_key",
        "/consents",
        "sixty keys are read from the cache one by one",
        ("cache.key-by-key", "db.n-plus", "db.chatty", "calls.chatty"),
        ("consents", "redis", "GET"),
    ),
    Problem(
        "slow_hash",
        "/portal",
        "a token is hashed with PBKDF2 for every request",
        ("py.password", "py.hot-function"),
        ("portal", "pbkdf2"),
    ),
)
"""All planted problems."""
