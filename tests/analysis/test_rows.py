from __future__ import annotations

import numpy as np

from perfkit.analysis.vector.rows import indices, rows_or_null


def test_no_row_is_null_and_minus_one() -> None:
    rows = rows_or_null(np.array([3, -1, 0]))
    assert rows.to_list() == [3, None, 0]
    assert indices(rows).tolist() == [3, -1, 0]
    assert rows_or_null(np.zeros(0, dtype=np.int64)).to_list() == []
