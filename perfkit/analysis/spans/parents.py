"""Which span is the parent of which: ids to row numbers, with all that real data gets wrong."""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.vector.forest import Bools, Ints, cut_cycles
from perfkit.analysis.vector.lookup import Places

_TRACE = ("trace_hi", "trace_lo")
_HOLDERS_PER_ID = 16
"""Of so many spans that share one id, the best parent is sought; ids shared by more are noise."""


def drop_repeats(spans: pl.DataFrame) -> tuple[pl.DataFrame, Places]:
    """Keep one of the spans that were delivered twice, the most complete one.

    Also returns where each id is.
    """
    key = _key(spans, "span_id")
    places = Places(key.to_numpy())
    if places.unique:
        return spans, places
    repeated = key.is_duplicated()
    identity = [*_TRACE, "span_id", "service", "kind", "start_ns"]
    kept = (
        spans.filter(repeated)
        .sort("duration_ns", descending=True, nulls_last=True, maintain_order=True)
        .unique(identity, keep="first", maintain_order=True)
    )
    spans = pl.concat([spans.filter(~repeated), kept], rechunk=True)
    return spans, Places(_key(spans, "span_id").to_numpy())


def link(spans: pl.DataFrame, places: Places) -> tuple[Ints, Bools, Bools]:
    """Return parent indices (-1 at roots), which spans were cut off, and which lost their parent.

    Cut off: the parent is missing (an orphan), is the span itself, or stands below it (a cycle).
    """
    names = spans["parent_id"].is_not_null().to_numpy()
    parent = _look_up(spans, places)
    if not places.unique:
        parent = _choose(spans, parent, _shared_ids(spans, pl.Series(places.keys)))
    missing = names & (parent < 0)
    cut = missing.copy()
    own = parent == np.arange(len(parent))
    parent[own] = -1
    cut |= own
    parent, roots = cut_cycles(parent)
    cut[roots] = True
    return parent, cut, missing


def detached(spans: pl.DataFrame, links: pl.DataFrame, parent: Ints) -> Bools:
    """Return which spans follow from their parent without it waiting for them.

    A consumer under its producer or under another service, and a span with a link to its parent.
    """
    has_parent = parent >= 0
    kinds = spans["kind"]
    result = np.zeros(len(parent), dtype=np.bool_)
    consumers = np.flatnonzero((kinds == "consumer").fill_null(False).to_numpy() & has_parent)
    if consumers.size:
        above = parent[consumers]
        services = spans["service"]
        other = (services[consumers].ne_missing(services[above])).to_numpy()
        produced = (kinds[above] == "producer").fill_null(False).to_numpy()
        result[consumers] = other | produced
    if links.height:
        own_links = links.filter(
            pl.col("trace_hi") == pl.col("linked_trace_hi"),
            pl.col("trace_lo") == pl.col("linked_trace_lo"),
        )
        linked = (
            spans.lazy()
            .select(*_TRACE, "span_id", "parent_id")
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


def _key(spans: pl.DataFrame, id_column: str) -> pl.Series:
    return spans.select(key=pl.struct(*_TRACE, id_column).hash(seed=0))["key"]


def _look_up(spans: pl.DataFrame, places: Places) -> Ints:
    """Find each span's parent by a hash of trace and id, and check what was found."""
    parent = np.full(spans.height, -1)
    child = np.flatnonzero(spans["parent_id"].is_not_null().to_numpy())
    above = places.of(_key(spans, "parent_id").to_numpy()[child])
    found = above >= 0
    for column, column_above in (*zip(_TRACE, _TRACE, strict=True), ("parent_id", "span_id")):
        ids, ids_above = (spans[name].fill_null(0).to_numpy() for name in (column, column_above))
        found &= ids[child] == ids_above[above]
    parent[child[found]] = above[found]
    return parent


def _shared_ids(spans: pl.DataFrame, key: pl.Series) -> pl.DataFrame:
    """Return the spans whose id another span of the trace has too."""
    columns = ("kind", "service", "start_ns", "duration_ns")
    shared = spans.select(*columns).with_row_index("holder").with_columns(key=key)
    return (
        shared.filter(key.is_duplicated())
        .sort(pl.col("kind") == "server", descending=True, maintain_order=True)
        .group_by("key", maintain_order=True)
        .head(_HOLDERS_PER_ID)
    )


def _choose(spans: pl.DataFrame, parent: Ints, shared: pl.DataFrame) -> Ints:
    """Choose among parents that share an id, as Zipkin's client and server spans do.

    A server span belongs under the client span of the same id. Any other child belongs to the
    holder of its own service, else to the server, else to the one that it lies in.
    """
    columns = ("service", "kind", "start_ns", "duration_ns")
    children = (
        spans.select(*columns)
        .with_row_index("child")
        .with_columns(key=_key(spans, "parent_id"), own_key=_key(spans, "span_id"))
        .filter(spans["parent_id"].is_not_null())
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
