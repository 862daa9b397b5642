"""Replays of one set of edits."""

from __future__ import annotations

import polars as pl

from perfkit.analysis.replay.edits import Edits
from perfkit.analysis.replay.what_if import Change, replay_all, saved_range
from perfkit.analysis.session import Tables


def replay(tables: Tables, edits: Edits) -> pl.DataFrame:
    """Return `entry_row`, `before_ns` and `after_ns` of every entry."""
    return replay_all(tables, [edits])[0]


def saved_ratio(tables: Tables, edits: Edits) -> float:
    """Return the share of request time that edits take away."""
    return saved_range(tables, Change(edits, edits))[0]
