"""What changed between two sides, and which component made it: everything as data.

The answer in words is the command's (`cli/compare.py`); the report may draw the same frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from perfkit.analysis.comparison import differences, path_differences
from perfkit.analysis.comparison.contrast import Contrast
from perfkit.analysis.comparison.core_share import core_share
from perfkit.analysis.comparison.root_cause import Causes, rank


@dataclass(frozen=True)
class Comparison:
    """Two sides, compared in all respects."""

    contrast: Contrast
    differences: pl.DataFrame
    """`differences.COLUMNS`: endpoints, tools, components, queries and resources, in that order;
    of one kind the surest changes first."""
    causes: Causes
    """`root_cause.COLUMNS` and `evidence.COLUMNS`."""
    request_paths: pl.DataFrame
    """`path_differences.COLUMNS`, for requests."""
    code_paths: pl.DataFrame
    """The same for the code that was seen running."""
    traits: pl.DataFrame | None
    """Of slow against typical the table `slow_traits`; otherwise None."""
    core_ratio: float | None
    """Of slow against typical, how much of what they take longer may be waiting for a core that
    other programs had; None where that is not known."""


_KINDS = (
    differences.endpoints,
    differences.tools,
    differences.components,
    differences.queries,
    differences.resources,
)


def compare(contrast: Contrast) -> Comparison:
    """Compare two sides."""
    return Comparison(
        contrast,
        pl.concat(
            kind(contrast).sort("p_adjusted", "p", nulls_last=True, maintain_order=True)
            for kind in _KINDS
        ),
        rank(contrast),
        path_differences.request_paths(contrast),
        path_differences.code_paths(contrast),
        contrast.parts[0].tables.frame("slow_traits") if contrast.about == "tail" else None,
        core_share(contrast),
    )
