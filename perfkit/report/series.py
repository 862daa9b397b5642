"""Metrics over time as grids of cells: one row a series, one column a stretch of time."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

_STEPS_S = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
MAX_COLUMNS = 300


def bucket_ns(duration_ns: int, least_ns: int = 0) -> int:
    """Return a round length of time that cuts the capture into at most `MAX_COLUMNS` columns."""
    wanted = max(duration_ns / MAX_COLUMNS, least_ns)
    for step in _STEPS_S:
        if step * 1e9 >= wanted:
            return int(step * 1e9)
    return int(-(-wanted // 3600e9) * 3600e9)


def interval_ns(ts_ns: pl.Series) -> int:
    """Return the usual time between two readings, 0 when there is only one."""
    steps = ts_ns.unique().sort().diff().drop_nulls()
    return int(steps.median() or 0)  # type: ignore[arg-type]


def panel(
    readings: pl.DataFrame, *, origin_ns: int, duration_ns: int, **shown: Any
) -> dict[str, Any]:
    """Return a panel of a heatmap from `readings` (ts_ns, row, value): means by cell.

    Rows stand in the order in which they first come; a cell without a reading is NaN. `shown` is
    handed on: id, title, unit, max, note.
    """
    width = bucket_ns(duration_ns, interval_ns(readings["ts_ns"]))
    columns = -(-duration_ns // width)
    rows = readings["row"].unique(maintain_order=True)
    cells = (
        readings.with_columns(
            column=((pl.col("ts_ns") - origin_ns) // width).clip(0, columns - 1),
            line=pl.col("row").replace_strict(rows, pl.int_range(len(rows), eager=True)),
        )
        .group_by("line", "column")
        .agg(pl.col("value").mean())
    )
    values = np.full(len(rows) * columns, np.nan, dtype=np.float32)
    values[(cells["line"] * columns + cells["column"]).to_numpy()] = cells["value"].to_numpy()
    return {
        "rows": rows.to_list(),
        "start_ns": 0,
        "bucket_ns": width,
        "columns": columns,
        "values": values,
        **shown,
    }
