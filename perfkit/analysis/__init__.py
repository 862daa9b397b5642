"""Derived tables: functions from tables to tables. `DERIVED` lists every one of them."""

from __future__ import annotations

from perfkit.analysis import facts
from perfkit.analysis.code import (
    call_paths,
    code_tree,
    entry_modules,
    functions,
    sample_spans,
    samples,
    threads,
)
from perfkit.analysis.comparison import slow_traits
from perfkit.analysis.database import queries, query_repeats, table_scans
from perfkit.analysis.series import metric_stats, shifts, time_series, timeline
from perfkit.analysis.session import Derived
from perfkit.analysis.spans import (
    cache_fills,
    components,
    critical_path,
    drag,
    endpoints,
    equal_calls,
    http_calls,
    requests,
    serial_calls,
    span_times,
    span_tree,
    span_waits,
    tool_calls,
    tool_invocations,
    tree,
)
from perfkit.analysis.waits import (
    checkouts,
    contention,
    executors,
    lock_waits,
    loop_blocking,
    pool_waits,
    pools,
)

DERIVED: tuple[Derived, ...] = (
    tree.DERIVED,
    span_waits.DERIVED,
    critical_path.DERIVED,
    drag.DERIVED,
    span_times.DERIVED,
    requests.DERIVED,
    endpoints.ENDPOINTS,
    endpoints.TOOLS,
    components.COMPONENTS,
    components.OPERATIONS,
    components.EDGES,
    span_tree.SPAN_TREE_ROWS,
    span_tree.SPAN_TREE,
    queries.CALLS,
    queries.QUERIES,
    query_repeats.DERIVED,
    http_calls.DERIVED,
    equal_calls.DERIVED,
    cache_fills.DERIVED,
    serial_calls.DERIVED,
    tool_calls.DERIVED,
    tool_invocations.DERIVED,
    call_paths.DERIVED,
    code_tree.DERIVED,
    functions.DERIVED,
    samples.DERIVED,
    threads.DERIVED,
    metric_stats.DERIVED,
    table_scans.DERIVED,
    sample_spans.DERIVED,
    sample_spans.CODE_BY_ENTRY,
    entry_modules.DERIVED,
    loop_blocking.DERIVED,
    lock_waits.SAMPLES,
    lock_waits.DERIVED,
    executors.DERIVED,
    checkouts.DERIVED,
    pools.DERIVED,
    pool_waits.DERIVED,
    facts.DERIVED,
    timeline.DERIVED,
    time_series.DERIVED,
    shifts.TRENDS,
    shifts.SHIFTS,
    contention.DERIVED,
    contention.ENDPOINTS,
    slow_traits.DERIVED,
)
