"""Rows of any shape become cells that a template can print."""

from __future__ import annotations

from perfkit.report.columns import guess, plain


def test_values_of_every_kind_fit_a_cell() -> None:
    assert plain(True) == "yes"
    assert plain(False) == "no"
    assert plain(["a", 1, None]) == "a, 1, None"
    assert plain(1.5) == 1.5
    assert plain(None) is None
    assert plain({"a": 1}) == "{'a': 1}"


def test_flags_are_text_and_rows_are_left_out() -> None:
    columns = guess([{"is_loop": plain(True), "calls": 3, "entry_row": 1, "nothing": None}])
    assert [(column.key, column.kind) for column in columns] == [
        ("is_loop", "text"),
        ("calls", "number"),
    ]
