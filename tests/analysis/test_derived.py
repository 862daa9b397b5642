from __future__ import annotations

import pytest

from perfkit import model
from perfkit.analysis import DERIVED
from perfkit.analysis.session import Derived
from tests.analysis.build import S, analyse


@pytest.mark.parametrize("derived", DERIVED, ids=lambda derived: derived.name)
def test_every_column_of_every_derived_table_is_described(derived: Derived) -> None:
    nothing = analyse([]).frame(derived.name)
    one = analyse([S(1, 0, 10, kind="server", endpoint="GET /a")]).frame(derived.name)
    assert nothing.columns == list(derived.columns)
    assert nothing.schema == one.schema
    assert all(derived.columns.values())
    # Shards number them anew by their names.
    numbers = [name for name in nothing.columns if name == "row" or name.endswith("_row")]
    assert all(nothing.schema[name].is_integer() for name in numbers)
    assert derived.row


def test_a_table_needs_tables_that_exist() -> None:
    names = {derived.name for derived in DERIVED} | set(model.BY_NAME)
    assert len(names) == len(DERIVED) + len(model.BY_NAME)
    for derived in DERIVED:
        assert set(derived.needs) <= names, derived.name
