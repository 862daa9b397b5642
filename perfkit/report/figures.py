"""Figures of a capture as Plotly objects, for notebooks. The report draws its own."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np
import plotly.graph_objects as go
import polars as pl

from perfkit import units
from perfkit.errors import InputError, UsageError
from perfkit.exporters import views

KINDS = ("flame", "heatmap")

_MOST_FRAMES = 1000
"""Plotly's icicle takes seconds beyond this: see reference/flame-graphs.md of the design."""
_COLUMNS, _ROWS = 60, 40


def figure(tables: Mapping[str, pl.LazyFrame], kind: str, view: str | None) -> go.Figure:
    """Return a figure. Raises UsageError for an unknown kind or view, InputError for no data."""
    if kind not in KINDS:
        raise UsageError(f"no figure is called {kind!r}", hint=f"known: {', '.join(KINDS)}")
    if kind == "heatmap":
        return _heatmap(tables)
    if view is not None and view not in views.VIEWS:
        raise UsageError(f"no view is called {view!r}", hint=f"known: {', '.join(views.VIEWS)}")
    _, tree = views.chosen(tables, view, tuple(views.VIEWS))
    return _flame(tree)


def _flame(tree: views.Tree) -> go.Figure:
    """Return an icicle of the widest frames; a parent is always at least as wide as its child."""
    totals = tree.totals()
    whole = int(totals[tree.parents < 0].sum())
    shown = np.sort(np.argsort(-totals, kind="stable")[:_MOST_FRAMES]).tolist()
    shown = [node for node in shown if totals[node] > 0]
    # A frame's parent is wider or as wide and comes before it, so it is shown too.
    write = units.duration if tree.unit == views.NANOSECONDS else units.number
    left_out = int((totals > 0).sum()) - len(shown)
    title = f"{tree.title}: {write(whole)}"
    if left_out:
        title += f" (the {len(shown):,} widest frames; {left_out:,} are left out)"
    chart = go.Icicle(
        ids=["all", *(str(node) for node in shown)],
        # Plotly reads tags in labels: foreign names are escaped.
        labels=["all", *(escape(tree.names[node]) for node in shown)],
        parents=["", *(_parent(int(tree.parents[node])) for node in shown)],
        values=[whole, *(int(totals[node]) for node in shown)],
        customdata=[
            [write(whole), ""],
            *([write(int(totals[node])), escape(tree.files[node])] for node in shown),
        ],
        branchvalues="total",
        sort=True,
        tiling={"orientation": "v"},
        hovertemplate="%{label}<br>%{customdata[0]}, %{percentRoot}<br>%{customdata[1]}"
        "<extra></extra>",
    )
    return go.Figure(chart, layout={"title": {"text": title}, "margin": {"l": 8, "r": 8, "b": 8}})


def _parent(node: int) -> str:
    return str(node) if node >= 0 else "all"


def _heatmap(tables: Mapping[str, pl.LazyFrame]) -> go.Figure:
    """Return how many requests took how long, over time; the scale of lengths is logarithmic."""
    entries = (
        tables["requests"]
        .filter(pl.col("entry"))
        .select("start_ns", "duration_ns", "adjusted_count")
        .collect()
    )
    if entries.is_empty():
        raise InputError("there is nothing to draw: no requests", hint="record with --otlp")
    start, length = entries["start_ns"].to_numpy(), entries["duration_ns"].to_numpy()
    times = np.linspace(start.min(), max(start.max(), start.min() + 1), _COLUMNS + 1)
    logs = np.log10(np.maximum(length, 1))
    edges = np.linspace(logs.min(), max(logs.max(), logs.min() + 1e-9), _ROWS + 1)
    counts, _, _ = np.histogram2d(logs, start, (edges, times), weights=entries["adjusted_count"])
    middles = 10 ** ((edges[:-1] + edges[1:]) / 2)
    chart = go.Heatmap(
        x=pl.Series(times[:-1].astype(np.int64)).cast(pl.Datetime("ns")).to_list(),
        y=(middles / 1e6).tolist(),
        z=np.where(counts > 0, counts, np.nan).tolist(),
        customdata=[[units.duration(middle)] * _COLUMNS for middle in middles],
        colorscale="YlOrRd",
        colorbar={"title": {"text": "requests"}},
        hovertemplate="%{x}<br>about %{customdata}<br>%{z} requests<extra></extra>",
    )
    layout = {
        "title": {"text": "How long requests took"},
        "xaxis": {"title": {"text": "time (UTC)"}},
        "yaxis": {"type": "log", "title": {"text": "ms"}},
    }
    return go.Figure(chart, layout=layout)
