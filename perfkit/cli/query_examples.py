"""The questions of whoever is on call, as SQL to run or build upon: `perfkit query --example`."""

from __future__ import annotations

from typing import NamedTuple


class Example(NamedTuple):
    """A question and the SELECT that answers it."""

    question: str
    sql: str


EXAMPLES: dict[str, Example] = {
    "slow-endpoints": Example(
        "Which endpoints take most of the time, and how slow are they?",
        """\
SELECT endpoint, requests, share_ratio, p50_ns, p95_ns, p99_ns
FROM endpoints
ORDER BY total_ns DESC
LIMIT 10""",
    ),
    "failing-endpoints": Example(
        "Which endpoints fail, and do some fail behind an answer that says all is well?",
        """\
SELECT endpoint, COUNT(*) AS seen,
  SUM(CASE WHEN status = 'error' THEN 1 ELSE 0 END) AS failed,
  SUM(CASE WHEN hidden_error THEN 1 ELSE 0 END) AS hidden,
  MAX(http_status) AS worst_status
FROM requests
GROUP BY endpoint
HAVING SUM(CASE WHEN status = 'error' OR hidden_error THEN 1 ELSE 0 END) > 0
ORDER BY failed DESC, hidden DESC
LIMIT 10""",
    ),
    "where-time-goes": Example(
        "Which part of the system makes requests as long as they are?",
        """\
SELECT component, category, service, critical_ratio, self_ns, count, p95_ns, error_ratio
FROM components
ORDER BY critical_ns DESC
LIMIT 10""",
    ),
    "dependencies": Example(
        "What do the services call, what does it cost, and how much of it is network and queueing?",
        """\
SELECT service, component, critical_ratio, count, error_ratio, total_ns, server_ns, gap_ns
FROM edges
ORDER BY critical_ns DESC
LIMIT 15""",
    ),
    "slow-queries": Example(
        "Which queries take most of the time?",
        """\
SELECT statement, calls, share_ratio, mean_ns, p95_ns, max_repeats
FROM queries
ORDER BY total_ns DESC
LIMIT 10""",
    ),
    "repeated-queries": Example(
        "Which queries run again and again within one request, and from where (N+1)?",
        """\
SELECT q.statement, r.caller, COUNT(*) AS places, MAX(r.calls) AS most_calls,
  SUM(r.union_ns) AS spent_ns
FROM query_repeats AS r
JOIN queries AS q ON r.query_id = q.query_id
WHERE r.calls >= 5
GROUP BY q.statement, r.caller
ORDER BY spent_ns DESC
LIMIT 10""",
    ),
    "slowest-requests": Example(
        "Which single requests were slowest, and what in them?",
        """\
SELECT duration_ns, endpoint, worst_name, worst_self_ns, trace_lo, status, start_ns, trace_hi
FROM requests
WHERE entry
ORDER BY duration_ns DESC
LIMIT 10""",
    ),
    "what-changed-when": Example(
        "When did rate, errors, latency or resources leave their usual level, and who suffered?",
        """\
SELECT start_ns, duration_ns, measure, endpoint, shape, change_ratio, extra_ns, worst_endpoint
FROM shifts
ORDER BY score DESC
LIMIT 15""",
    ),
    "who-waits": Example(
        "Who waited for connections, locks, the event loop or the machine, and what did it cost?",
        """\
SELECT kind, resource, start_ns, contended_ns, wait_ns, requests, extra_ns, worst_endpoint
FROM contention
ORDER BY wait_ns DESC NULLS LAST, contended_ns DESC
LIMIT 15""",
    ),
    "hot-code": Example(
        "Which functions keep the processor busy?",
        """\
SELECT function, module, running_self_ns, self_ns, total_ns
FROM functions
ORDER BY running_self_ns DESC NULLS LAST, self_ns DESC NULLS LAST
LIMIT 10""",
    ),
}
"""Name -> example, in the order in which an engineer asks."""
