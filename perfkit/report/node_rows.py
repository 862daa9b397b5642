"""Which row of a table each node of the request flame graph belongs to."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from perfkit.report.context import Context

COMPONENT = ("service", "category", "component")
"""What tells the rows of `components` and of `edges` apart."""


def rows_of_nodes(
    context: Context, rows: list[dict[str, Any]], key: tuple[str, ...]
) -> npt.NDArray[np.int32] | None:
    """Return the row of each node, -1 for none.

    So that the page can fill a table for any choice of requests. Null without rows, and when spans
    of one node belong to different rows.
    """
    if not rows:
        return None
    numbered = pl.LazyFrame(
        {name: [row[name] for row in rows] for name in key},
        schema=dict.fromkeys(key, pl.String),
    ).with_row_index("shown")
    seen = [
        shard["span_tree_rows"]
        .join(shard["tree"].select("row", *key, hash=pl.struct(key).hash()), on="row")
        .group_by("node_id")
        .agg(pl.col(key).first(), least=pl.col("hash").min(), most=pl.col("hash").max())
        .collect()
        for shard in context.tables.shards_of("span_tree_rows", "tree")
    ]
    nodes = (
        pl.concat(seen)
        .group_by("node_id")
        .agg(pl.col(key).first(), one=pl.col("least").min() == pl.col("most").max())
    )
    found = nodes.join(numbered.collect(), on=key, how="left", nulls_equal=True).select(
        "node_id", "one", pl.col("shown").cast(pl.Int32).fill_null(-1)
    )
    if not found["one"].all():
        return None
    of_node = np.full(context.tables.frame("span_tree").height, -1, dtype=np.int32)
    of_node[found["node_id"].to_numpy()] = found["shown"].to_numpy()
    return of_node
