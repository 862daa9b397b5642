"""Terminal text fits its width and obeys nobody but us."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.cli import text


@given(st.text(max_size=200))
def test_plain_has_no_controls(value: str) -> None:
    assert all(char.isprintable() for char in text.plain(value))


def test_plain_drops_escape_sequences_and_overrides() -> None:
    assert text.plain("a\x1b[31mb\u202ec\nd") == "a [31mb c d"


@given(st.text(max_size=200), st.integers(1, 100))
def test_shorten_fits(value: str, width: int) -> None:
    assert len(text.shorten(value, width)) <= width


def test_shorten_keeps_both_ends() -> None:
    assert text.shorten("abcdefghijklmnop", 10) == "abcdef…nop"


def test_table_fits_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text.table(
        ["name", "p50", "p95", "where"],
        [["x" * 200, "1 ms", "2 ms", "here"], ["short", "10 ms", "20 ms", "there"]],
    )
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= 80
    assert lines[1].endswith("here")
    assert "…" in lines[1]


def test_table_drops_columns_rather_than_break(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    text.table(["name", *"abcdef"], [["name", *["1234567"] * 6]])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 40
    assert lines[0].split() == ["name", "a", "b", "c"]


def test_table_without_rows(capsys: pytest.CaptureFixture[str]) -> None:
    text.table(["name", "count"], [])
    assert capsys.readouterr().out.split() == ["name", "count"]
