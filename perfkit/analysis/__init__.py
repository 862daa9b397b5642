"""Derived tables: functions from tables to tables. `DERIVED` lists every one of them."""

from __future__ import annotations

from perfkit.analysis import (
    call_paths,
    code_tree,
    functions,
    loop_blocking,
    metric_stats,
    sample_spans,
    samples,
    threads,
)
from perfkit.analysis.session import Derived

DERIVED: tuple[Derived, ...] = (
    call_paths.DERIVED,
    code_tree.DERIVED,
    functions.DERIVED,
    samples.DERIVED,
    threads.DERIVED,
    metric_stats.DERIVED,
    sample_spans.DERIVED,
    sample_spans.CODE_BY_ENTRY,
    loop_blocking.DERIVED,
)
