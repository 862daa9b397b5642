from __future__ import annotations

import pytest

from perfkit import model
from perfkit.analysis import DERIVED
from perfkit.analysis.session import Derived
from tests.analysis.sampled import FRAMES, Sample, tables
from tests.analysis.test_facts import request

NAMES = [derived.name for derived in DERIVED]


def test_names_are_used_once() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert not set(NAMES) & set(model.BY_NAME)


@pytest.mark.parametrize("derived", DERIVED, ids=NAMES)
def test_every_table_says_what_its_rows_and_columns_are(derived: Derived) -> None:
    assert derived.row
    assert all(derived.columns.values())
    assert set(derived.needs) <= {*NAMES, *model.BY_NAME}


@pytest.mark.parametrize("derived", DERIVED, ids=NAMES)
def test_tables_have_the_same_columns_with_rows_and_without(derived: Derived) -> None:
    some = tables(
        [Sample(FRAMES[:4], 5, 10, state="running"), Sample(FRAMES[:2], 15, 90, state="idle")],
        spans=[
            request(1, 0, 100, tool="t", tool_arguments="{}"),
            request(2, 10, 30, trace_lo=1, parent_id=1, kind="client", db_system="sqlite")
            | {"db_statement": "SELECT 1", "endpoint": None},
            request(3, 40, 60, trace_lo=1, parent_id=1, kind="client", db_system="sqlite")
            | {"db_statement": "SELECT 1", "endpoint": None},
        ],
        metrics=[{"name": "m", "ts_ns": 2, "value": 1.0, "kind": "gauge"}],
    ).frame(derived.name)
    none = tables().frame(derived.name)
    assert none.columns == some.columns == list(derived.columns)
    assert none.schema == some.schema
