"""What is shown of a slow request's spans."""

from __future__ import annotations

import json

import polars as pl
import pytest

from perfkit.report.request_details import without_steps


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize(
    ("attributes", "shown"),
    [
        ({"perfkit.steps": "1 2 ."}, {}),
        ({"a": 1, "perfkit.steps": "1 @3 2 +"}, {"a": 1}),
        ({"perfkit.steps": ".", "b": {"c": "}"}}, {"b": {"c": "}"}}),
        ({"a": 1, "perfkit.steps": "1 2", "b": 2}, {"a": 1, "b": 2}),
        ({"a": '"perfkit.steps":"1"'}, {"a": '"perfkit.steps":"1"'}),
        ({}, {}),
    ],
)
def test_steps_are_not_shown(
    attributes: dict[str, object], shown: dict[str, object], separators: tuple[str, str]
) -> None:
    text = json.dumps(attributes, separators=separators)
    frame = pl.DataFrame({"attributes": [text, None]})
    first, second = frame.select(without_steps(pl.col("attributes"))).to_series()
    assert json.loads(first) == shown
    assert second is None
