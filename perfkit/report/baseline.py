"""The capture that a report is compared with: its call trees and populations for the page.

Both call trees, of requests and of code, are joined with the capture's own by the labels on their
paths, so that what vanished and what is new has its place in one tree. Of the baseline's requests
the page gets sums for each endpoint, tool, service, status and block of time, not each request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from perfkit.analysis.comparison import headline
from perfkit.analysis.comparison.compare import Comparison, compare
from perfkit.analysis.comparison.contrast import Contrast, Part, of_tables
from perfkit.analysis.session import Tables
from perfkit.analysis.vector.forest import Ints, along_path
from perfkit.analysis.vector.percentiles import codes

SPAN_LABELS = ("label", "service", "category")
CODE_LABELS = ("function", "module", "category")
"""Without the line: code that only moved is the same code."""


@dataclass(frozen=True)
class Baseline:
    """The contrast between the baseline (side 0) and the capture of the report (side 1)."""

    contrast: Contrast

    @cached_property
    def comparison(self) -> Comparison:
        """What changed, and how sure that is."""
        return compare(self.contrast)

    @cached_property
    def headline(self) -> dict[str, dict[str, Any]]:
        """What changed of all requests together: `differences.COLUMNS` by measure."""
        rows = headline.headline(self.contrast).iter_rows(named=True)
        return {row["measure"]: row for row in rows}

    @property
    def parts(self) -> list[Part]:
        """The captures of the baseline."""
        side = self.contrast.side_of_run
        return [part for part in self.contrast.parts if not side[part.times[0].first_run]]

    @property
    def name(self) -> str:
        """What the baseline is called."""
        return self.contrast.names[0]


def read(before: Sequence[Tables], after: Sequence[Tables]) -> Baseline:
    """Compare the captures `after`, of which the first is the report's, with those `before`."""
    return Baseline(of_tables(before, after))


@dataclass(frozen=True)
class Joined:
    """Several call trees as one: all of them, a row a node, parents first."""

    nodes: pl.DataFrame
    node_ids: list[Ints]
    """For each tree, in which node of it each of its own nodes is."""


def joined(trees: Sequence[pl.DataFrame], labels: Sequence[str]) -> Joined:
    """Join trees by the labels on their paths.

    A tree has `node_id` (its row), `parent_id` (a row above; null at roots), `depth` and `labels`.
    """
    sizes = [tree.height for tree in trees]
    offsets = np.cumsum([0, *sizes[:-1]])
    every = pl.concat(
        tree.with_columns(pl.col("parent_id") + int(offset))
        for tree, offset in zip(trees, offsets, strict=True)
    )
    parent = every["parent_id"].fill_null(-1).to_numpy()
    label = every.select(pl.struct(*labels, "depth").hash(seed=0)).to_series()
    path = along_path(parent, label.reinterpret(signed=True).to_numpy(), np.add, 0)
    # Numbered as they first appear, so parents still come before their children.
    node, _ = codes(pl.DataFrame({"path": path}), ["path"])
    first = pl.Series(node).is_first_distinct()
    above = parent[first.to_numpy()]
    merged = every.filter(first).with_columns(
        node_id=pl.int_range(pl.len(), dtype=pl.Int64),
        parent_id=pl.Series(np.where(above < 0, -1, node[above])).replace(-1, None),
    )
    return Joined(merged, np.split(node, np.cumsum(sizes)[:-1]))


def blocks_of(part: Part, ts_ns: pl.Series, first_block: int) -> npt.NDArray[np.int64]:
    """Return the block of time, or the run, of each moment; without a time, the first."""
    stretch = part.times[0]
    run = part.run_of_time(ts_ns).fill_null(stretch.first_run).to_numpy()
    return np.asarray(run - stretch.first_run + first_block, dtype=np.int64)


def blocks(part: Part) -> int:
    """Return how many blocks a capture is cut into."""
    return part.times[0].blocks
