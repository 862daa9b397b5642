"""Which span is the parent of which: ids to row numbers, with all that real data gets wrong."""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.spans.ids import Ids, numbers
from perfkit.analysis.spans.recorded import Recorded
from perfkit.analysis.vector.forest import Bools, Ints, cut_cycles
from perfkit.analysis.vector.lookup import Keys

_TRACE = ("trace_hi", "trace_lo")
_HOLDERS_PER_ID = 16
"""Of so many spans that share one id, the best parent is sought; ids shared by more are noise."""


def drop_repeats(spans: Recorded) -> Ids:
    """Keep one of the spans that were delivered twice, the most complete one."""
    ids = Ids.of(spans)
    if ids.places.unique:
        return ids
    identity = [*_TRACE, "span_id", "service", "kind", "start_ns"]
    repeated = pl.Series(ids.places.keys).is_duplicated()
    dropped = (
        spans.select(*identity, "duration_ns")
        .with_row_index("row")
        .filter(repeated)
        .sort("duration_ns", descending=True, nulls_last=True, maintain_order=True)
        .filter(~pl.struct(identity).is_first_distinct())
    )
    if dropped.is_empty():
        return ids
    kept = np.ones(spans.height, dtype=np.bool_)
    kept[dropped["row"].to_numpy()] = False
    spans.keep(np.flatnonzero(kept))
    return Ids.of(spans)


def link(spans: Recorded, ids: Ids) -> tuple[Ints, Bools, Bools]:
    """Return parent indices (-1 at roots), which spans were cut off, and which lost their parent.

    Cut off: the parent is missing (an orphan), is the span itself, or stands below it (a cycle).
    """
    names = spans["parent_id"].is_not_null().to_numpy()
    parent, key = _look_up(spans, ids, np.flatnonzero(names))
    if not ids.places.unique:
        parent = _choose(spans, parent, key, _shared_ids(spans, pl.Series(ids.places.keys)))
    missing = names & (parent < 0)
    cut = missing.copy()
    own = parent == np.arange(len(parent))
    parent[own] = -1
    cut |= own
    parent, roots = cut_cycles(parent)
    cut[roots] = True
    return parent, cut, missing


def detached(spans: Recorded, links: pl.DataFrame, parent: Ints) -> Bools:
    """Return which spans follow from their parent without it waiting for them.

    A consumer under its producer or under another service, and a span with a link to its parent.
    """
    has_parent = parent >= 0
    result = np.zeros(len(parent), dtype=np.bool_)
    consumers = np.flatnonzero(spans.is_kind("consumer") & has_parent)
    if consumers.size:
        above = parent[consumers]
        services = spans["service"]
        other = (services[consumers].ne_missing(services[above])).to_numpy()
        result[consumers] = other | spans.is_kind("producer")[above]
    if links.height:
        own_links = links.filter(
            pl.col("trace_hi") == pl.col("linked_trace_hi"),
            pl.col("trace_lo") == pl.col("linked_trace_lo"),
        )
        linked = (
            spans.select(*_TRACE, "span_id", "parent_id")
            .lazy()
            .with_row_index("index")
            .join(
                own_links.lazy(),
                left_on=[*_TRACE, "span_id", "parent_id"],
                right_on=[*_TRACE, "span_id", "linked_span_id"],
                how="semi",
            )
            .select("index")
            .collect()["index"]
            .to_numpy()
        )
        result[linked] = has_parent[linked]
    return result


def _look_up(spans: Recorded, ids: Ids, child: Ints) -> tuple[Ints, Keys]:
    """Return the parent of each span, -1 for none, and the hashes by which those of `child`, which
    name one, were looked for.
    """
    traces = ids.traces.of_rows(child)
    key = traces.span_key(numbers(spans["parent_id"])[child])
    parent = np.full(spans.height, -1)
    parent[child] = ids.find(traces, key)
    return parent, key


def _shared_ids(spans: Recorded, key: pl.Series) -> pl.DataFrame:
    """Return the spans whose id another span of the trace has too."""
    columns = ("kind", "service", "start_ns", "duration_ns")
    shared = spans.select(*columns).with_row_index("holder").with_columns(key=key)
    return (
        shared.filter(key.is_duplicated())
        .sort(pl.col("kind") == "server", descending=True, maintain_order=True)
        .group_by("key", maintain_order=True)
        .head(_HOLDERS_PER_ID)
    )


def _choose(spans: Recorded, parent: Ints, key: Keys, shared: pl.DataFrame) -> Ints:
    """Choose among parents that share an id, as Zipkin's client and server spans do.

    A server span belongs under the client span of the same id. Any other child belongs to the
    holder of its own service, else to the server, else to the one that it lies in.
    """
    columns = ("service", "kind", "start_ns", "duration_ns")
    children = (
        spans.select(*columns)
        .with_row_index("child")
        .filter(spans["parent_id"].is_not_null())
        .with_columns(key=pl.Series(key))
    )
    pairs = children.join(shared, on="key", suffix="_above").filter(
        pl.col("child") != pl.col("holder")
    )
    inside = (pl.col("start_ns") >= pl.col("start_ns_above")) & (
        pl.col("start_ns") <= pl.col("start_ns_above") + pl.col("duration_ns_above").fill_null(0)
    )
    best = pairs.sort(
        pl.col("service").eq_missing(pl.col("service_above")),
        pl.col("kind_above") == "server",
        inside,
        descending=True,
        maintain_order=True,
    ).unique("child", keep="first", maintain_order=True)
    chosen = parent.copy()
    chosen[best["child"].to_numpy()] = best["holder"].to_numpy()

    clients = shared.filter(pl.col("kind") == "client").unique("key", keep="first")
    halves = shared.filter(pl.col("kind") == "server").join(clients, on="key", suffix="_above")
    chosen[halves["holder"].to_numpy()] = halves["holder_above"].to_numpy()
    return chosen
