from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit import ids

INT64 = st.integers(-(2**63), 2**63 - 1)


@given(INT64.filter(bool))
def test_a_span_id_goes_to_hex_and_back(span_id: int) -> None:
    text = ids.span_hex(span_id)
    assert len(text) == 16
    assert ids.span_id_from_text(text) == ids.span_id_from_text(text.upper()) == span_id
    assert ids.span_id_from_bytes(bytes.fromhex(text)) == span_id


@given(INT64, INT64)
def test_a_trace_id_goes_to_hex_and_back(high: int, low: int) -> None:
    text = ids.trace_hex(high, low)
    assert len(text) == 32
    assert ids.trace_id_from_text(text) == (high, low)
    assert ids.trace_id_from_text(str(uuid.UUID(text))) == (high, low)
    assert ids.trace_id_from_bytes(bytes.fromhex(text)) == (high, low)


@given(st.binary(max_size=20))
def test_bytes_of_any_length_are_taken_from_the_right(raw: bytes) -> None:
    assert ids.span_id_from_bytes(raw) == (
        int.from_bytes(raw[-8:].rjust(8, b"\0"), "big", signed=True) or None
    )
    assert ids.span_id_from_bytes(raw) == ids.span_id_from_text(raw[-8:].hex())
    low, high = raw[-8:], raw[-16:-8]
    assert ids.trace_id_from_bytes(raw) == (
        int.from_bytes(high.rjust(8, b"\0"), "big", signed=True),
        int.from_bytes(low.rjust(8, b"\0"), "big", signed=True),
    )


@given(st.text())
def test_any_text_gives_an_id_that_fits(text: str) -> None:
    span_id = ids.span_id_from_text(text)
    assert span_id is None or -(2**63) <= span_id < 2**63
    assert span_id == ids.span_id_from_text(text)
    for half in ids.trace_id_from_text(text):
        assert -(2**63) <= half < 2**63


@pytest.mark.parametrize("text", [None, "", "0", "0000000000000000", str(uuid.UUID(int=0))])
def test_no_id_is_null(text: str | None) -> None:
    assert ids.span_id_from_text(text) is None


def test_short_and_long_spellings_of_a_trace_id_are_one() -> None:
    short = ids.trace_id_from_text("151e8ea44a5cf41c")
    assert short == ids.trace_id_from_text("0000000000000000151e8ea44a5cf41c")
    assert short == (0, 0x151E8EA44A5CF41C)


def test_different_texts_have_different_ids() -> None:
    texts = [f"request-{number}" for number in range(2000)]
    assert len({ids.span_id_from_text(text) for text in texts}) == 2000
    assert len({ids.trace_id_from_text(text) for text in texts}) == 2000
