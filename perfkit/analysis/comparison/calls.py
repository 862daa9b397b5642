"""Spans of both sides of a comparison in one frame, each charged to a component."""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit.analysis.comparison.contrast import Contrast
from perfkit.analysis.spans.tree import narrow
from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.rows import indices

_CALLING = ("client", "producer")
_PLACE = ("row", "parent_row", "request_row", "entry_row")
_TIMES = ("self_ns", "gap_ns")
_READ = (
    "subtree",
    "service",
    "name",
    "kind",
    "category",
    "component",
    "status",
    "start_ns",
    "duration_ns",
)

COLUMNS = (
    *("entry", "parent", "subtree", "run", "service", "name", "above", "owner", "callee", "target"),
    *("own_ns", "duration_ns", "start_ns", "failed", "weight"),
)


def charged(contrast: Contrast) -> pl.DataFrame:
    """Return the spans of both sides, depth first, one entry after the other.

    `entry` and `parent` are rows of this frame (-1 at entries), `above` is the parent's name,
    `own_ns` is self time and client-server gap, `weight` that of the span. `target` is the
    operation that a call reached, which its own name often does not say (`HTTP GET`).

    `owner` is who answers for the span's own time: its service, but for a call the callee, because
    between a client's span and its server's lie the network and the callee's queue. The callee is
    the service of the span below; if none is there (it never arrived, or it broke), the one that
    this operation always called elsewhere; if the callee sends no spans at all, it is a component
    of its own when several services call it, and otherwise part of its only caller.
    """
    frames, offset = [], 0
    columns = {"tree": (*_PLACE, *_READ, "adjusted_count"), "span_times": _TIMES}
    for part in contrast.parts:
        for rows, piece in part.pieces(columns):
            frame = _charged_piece(piece, rows.start, part.run_of_row[rows], offset)
            frames.append(frame)
            offset += frame.height
    spans = pl.concat(frames)
    spans = _with_callee(spans)
    silent = pl.col("silent_peer")
    callers = (
        spans.filter(silent.is_not_null())
        .group_by("silent_peer")
        .agg(callers=pl.col("service").n_unique())
    )
    shared = callers.filter(pl.col("callers") > 1)["silent_peer"]
    owner = pl.coalesce("callee", pl.when(silent.is_in(shared.implode())).then(silent), "service")
    return spans.with_columns(owner=owner).select(COLUMNS)


def _charged_piece(piece: pl.DataFrame, first: int, run: Ints, offset: int) -> pl.DataFrame:
    """Return the spans of whole traces, rows of `tree` from `first` on, that belong to a side."""
    keep = run >= 0
    tree = narrow(piece.with_columns(pl.col(*_PLACE) - first), keep)
    entry = indices(tree["entry_row"])
    at_entry = entry == np.arange(tree.height)
    parent = np.where(at_entry, -1, indices(tree["parent_row"]))
    above = tree.select("service", "name")[pl.Series(np.maximum(parent, 0))]
    return tree.select(*_READ, *_TIMES, weight="adjusted_count").with_columns(
        entry=pl.Series(entry + offset),
        parent=pl.Series(np.where(parent < 0, -1, parent + offset)),
        run=pl.Series(run[keep]),
        own_ns=pl.col("self_ns") + pl.col("gap_ns"),
        failed=(pl.col("status") == "error").fill_null(False),
        above=pl.when(pl.Series(parent >= 0)).then(above["name"]),
        remote=pl.Series(parent < 0) | (above["service"] != pl.col("service")),
    )


def _with_callee(spans: pl.DataFrame) -> pl.DataFrame:
    """Add `callee` (a service that sends spans) and `silent_peer` (one that does not)."""
    children = (
        spans.filter(pl.col("parent") >= 0)
        .group_by("parent")
        .agg(
            children=pl.len(),
            below=pl.col("service").filter("remote").first(),
            reached=pl.col("name").filter("remote").first(),
            remote_children=pl.col("remote").sum(),
        )
    )
    spans = spans.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    spans = spans.join(
        children, left_on="row", right_on="parent", how="left", maintain_order="left"
    )
    kind = pl.col("kind").fill_null("unspecified")
    # Without kinds, a call is what does nothing but to hold one span of another service.
    alone = (pl.col("children") == 1) & (pl.col("remote_children") == 1) & ~pl.col("remote")
    calls = kind.is_in(_CALLING) | ((kind == "unspecified") & alone)
    calls = calls.fill_null(False)
    spans = spans.with_columns(
        callee=pl.when(calls).then("below"), target=pl.when(calls).then("reached")
    )
    key = ["service", "name", "above"]
    usual = (
        spans.group_by(key)
        .agg(
            usual=pl.col("callee").drop_nulls().first(),
            different=pl.col("callee").drop_nulls().n_unique(),
            share=pl.col("callee").is_not_null().mean(),
        )
        .filter((pl.col("different") == 1) & (pl.col("share") >= 0.1))
        .select(*key, "usual")
    )
    leaf = pl.col("children").is_null()
    calling = leaf & pl.col("category").is_in(["client", "database", "messaging"])
    services = spans["service"].unique().implode()
    peer = pl.when(calling & (pl.col("component") != "unknown")).then("component")
    return (
        spans.join(usual, on=key, how="left", nulls_equal=True, maintain_order="left")
        .with_columns(
            callee=pl.coalesce(
                "callee",
                pl.when(leaf).then("usual"),
                pl.when(peer.is_in(services)).then(peer),
            )
        )
        .with_columns(silent_peer=pl.when(pl.col("callee").is_null()).then(peer))
    )
