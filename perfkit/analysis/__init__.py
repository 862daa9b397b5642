"""Derived tables: functions from tables to tables. `DERIVED` lists every one of them."""

from __future__ import annotations

from perfkit.analysis import (
    call_paths,
    code_tree,
    components,
    critical_path,
    endpoints,
    functions,
    lock_waits,
    loop_blocking,
    metric_stats,
    requests,
    sample_spans,
    samples,
    span_times,
    span_tree,
    threads,
    tree,
)
from perfkit.analysis.session import Derived

DERIVED: tuple[Derived, ...] = (
    tree.DERIVED,
    critical_path.DERIVED,
    span_times.DERIVED,
    requests.DERIVED,
    endpoints.ENDPOINTS,
    endpoints.TOOLS,
    components.COMPONENTS,
    components.OPERATIONS,
    components.EDGES,
    span_tree.SPAN_TREE_ROWS,
    span_tree.SPAN_TREE,
    call_paths.DERIVED,
    code_tree.DERIVED,
    functions.DERIVED,
    samples.DERIVED,
    threads.DERIVED,
    metric_stats.DERIVED,
    sample_spans.DERIVED,
    sample_spans.CODE_BY_ENTRY,
    loop_blocking.DERIVED,
    lock_waits.DERIVED,
)
