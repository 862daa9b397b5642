from __future__ import annotations

import itertools
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.analysis.database import table_scans
from tests.analysis.sampled import tables

SECOND = 10**9
_POINTS = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(["a", "b"]), st.integers(0, 5)),
    max_size=12,
    unique_by=lambda point: point[:2],
)


def point(metric: str, second: int, table: str, value: float) -> dict[str, Any]:
    labels = {"datname": "shop", "relname": table, "schemaname": "public"}
    return {
        "name": f"pg_stat_user_tables_{metric}",
        "kind": "counter",
        "ts_ns": second * SECOND,
        "value": float(value),
        "attributes": json.dumps(labels, sort_keys=True),
    }


@settings(max_examples=15)
@given(_POINTS)
def test_what_was_counted_equals_its_definition(points: list[tuple[int, str, int]]) -> None:
    rows = [point("seq_scan", *one) for one in points]
    found = table_scans.compute(tables(metrics=rows)).to_dicts()
    expected = {}
    for table in {table for _, table, _ in points}:
        counts = [value for _, name, value in sorted(points) if name == table]
        steps = itertools.pairwise(counts)
        grown = sum(max(0, later - earlier) for earlier, later in steps)
        expected[table] = grown if len(counts) > 1 else counts[0]
    assert {row["table"]: row["scans"] for row in found} == expected


def test_a_table_of_each_database_and_over_which_time() -> None:
    rows = [
        *(point("seq_scan", second, "a", 10 * second) for second in (1, 4)),
        *(point("seq_tup_read", second, "a", 1000 * second) for second in (1, 4)),
        point("n_live_tup", 4, "a", 70),
        point("seq_scan", 4, "b", 7),
        point("other", 4, "c", 7) | {"name": "db.client.connection.count"},
    ]
    first, second = table_scans.compute(tables(metrics=rows)).to_dicts()
    assert first == {
        "instance": None,
        "database": "shop",
        "schema": "public",
        "table": "a",
        "scans": 30,
        "scanned_rows": 3000,
        "index_scans": None,
        "live_rows": 70,
        "over_ns": 3 * SECOND,
    }
    assert (second["table"], second["scans"], second["over_ns"]) == ("b", 7, None)


def test_labels_that_are_none_name_no_table() -> None:
    rows = [point("seq_scan", 1, "a", 5) | {"attributes": text} for text in (None, "{", "[1]")]
    assert table_scans.compute(tables(metrics=rows)).is_empty()
