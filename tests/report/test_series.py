from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from perfkit.report import series

S = 1_000_000_000


@pytest.mark.parametrize(
    ("duration_s", "least_s", "step_s"),
    [(1, 0, 0.05), (20, 0, 0.1), (20, 0.4, 0.5), (300, 0, 1), (86_400, 0, 300), (10**7, 0, 36_000)],
)
def test_columns_are_round_and_few(duration_s: float, least_s: float, step_s: float) -> None:
    width = series.bucket_ns(int(duration_s * S), int(least_s * S))
    assert width == step_s * S
    assert duration_s * S / width <= series.MAX_COLUMNS


def test_a_panel_has_means_by_row_and_column() -> None:
    readings = pl.DataFrame(
        {
            "ts_ns": [0, S, S + 1, 3 * S, 0],
            "row": ["core 0"] * 4 + ["core 1"],
            "value": [0.5, 0.2, 0.4, 1.0, 0.25],
        }
    )
    panel = series.panel(readings, origin_ns=0, duration_ns=4 * S, id="cores", unit="ratio")
    assert panel["rows"] == ["core 0", "core 1"]
    assert (panel["id"], panel["unit"], panel["start_ns"]) == ("cores", "ratio", 0)
    grid = panel["values"].reshape(2, panel["columns"])
    step = S // panel["bucket_ns"]
    assert grid[0, 0] == np.float32(0.5)
    assert grid[0, step] == pytest.approx(0.3)
    assert grid[0, 3 * step] == 1
    assert grid[1, 0] == np.float32(0.25)
    assert math.isnan(grid[1, -1])


def test_readings_as_rare_as_the_columns_leave_no_holes() -> None:
    ts_ns = pl.Series(range(0, 20 * S, S // 2))
    readings = pl.DataFrame({"ts_ns": ts_ns, "row": ["host"] * 40, "value": [1.0] * 40})
    panel = series.panel(readings, origin_ns=0, duration_ns=20 * S)
    assert panel["columns"] == 40
    assert not np.isnan(panel["values"]).any()


def test_readings_outside_the_capture_are_kept_at_its_ends() -> None:
    ts_ns = [-2 * S, -S, 10 * S, 11 * S]
    readings = pl.DataFrame({"ts_ns": ts_ns, "row": ["a"] * 4, "value": [1.0, 1.0, 2.0, 2.0]})
    panel = series.panel(readings, origin_ns=0, duration_ns=10 * S)
    assert panel["values"][0] == 1
    assert panel["values"][-1] == 2
