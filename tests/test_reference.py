"""The generated pages of the documentation match the code."""

from __future__ import annotations

import pytest

from tools.reference import DOCS, pages


@pytest.mark.parametrize("name", ["tables.md", "commands.md", "perfkit.schema.json"])
def test_page_is_up_to_date(name: str) -> None:
    written = (DOCS / name).read_text(encoding="utf-8")
    assert written == pages()[name], "run: make reference"
