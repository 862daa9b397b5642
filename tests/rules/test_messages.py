"""Texts of findings: nothing foreign gets into them but as harmless text."""

from __future__ import annotations

import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.rules.messages import MAX_VALUE, SPECS, parse
from perfkit.sql.scopes import GuardError

COLUMNS = ("name", "value")


def render(source: str, **values: object) -> str:
    return parse(source, COLUMNS).render(values)


@pytest.mark.parametrize(
    ("spec", "value", "expected"),
    [
        ("text", "plain", "plain"),
        ("text", ["a", "b", "c"], "a, b and c"),
        ("text", ["a", None], "a"),
        ("text", list("abcdef"), "a, b, c, d and 2 more"),
        ("text", [], "–"),
        ("function", "Gateway.invoke", "Gateway.invoke()"),
        ("function", "<module>", "<module>"),
        ("function", "search.<locals>.<listcomp>", "search()"),
        ("function", "a.<locals>.b.<locals>.<genexpr>", "a.<locals>.b"),
        ("function", "ssl.create_default_context (ssl.py)", "ssl.create_default_context (ssl.py)"),
        ("function", None, "–"),
        ("number", 12.345, "12.3"),
        ("number", 1234567, "1,234,567"),
        ("integer", 9.7, "10"),
        ("duration", 450e6, "450 ms"),
        ("percent", 0.125, "12 %"),
        ("size", 1536, "1.5 KiB"),
        ("rate", 340 / 3600, "5.67/min"),
        ("time", 1_700_000_000_000_000_000, "2023-11-14 22:13:20.000Z"),
        ("number", None, "–"),
        ("text", None, "–"),
        ("duration", math.nan, "–"),
        ("integer", math.inf, "–"),
        ("percent", "not a number", "–"),
        ("number", True, "–"),
        ("duration", [1], "–"),
    ],
)
def test_specs(spec: str, value: object, expected: str) -> None:
    assert render(f"{{value:{spec}}}", value=value) == expected


def test_an_optional_part_needs_its_values() -> None:
    source = "pool[[ from {value:number}]] to 9[[, say]]."
    assert render(source, value=3) == "pool from 3 to 9, say."
    assert render(source, value=None) == "pool to 9, say."
    assert render("{name:text}[[ ({value:duration})]]", name="[[x]]", value=math.nan) == "[[x]]"


def test_a_value_is_never_a_template() -> None:
    assert render("{name:text}", name="{value:number} {0} %s", value=3) == "{value:number} {0} %s"


def test_control_characters_and_direction_overrides_are_gone() -> None:
    hostile = "\x1b[31mred\x1b[0m\r\nnext\u202eesrever\u2028line\x00"
    assert render("{name:text}", name=hostile) == "[31mred [0m next esrever line"


def test_long_values_are_cut_in_the_middle() -> None:
    text = render("{name:text}", name="SELECT " + "x" * 10_000 + " LIMIT 3")
    assert len(text) <= MAX_VALUE
    assert text.startswith("SELECT ")
    assert text.endswith(" LIMIT 3")
    assert " … " in text


@pytest.mark.parametrize(
    "source",
    [
        *("{", "}", "{}", "{name}", "{name:}", "{name:upper}", "{nam:text}", "{{name:text}}"),
        *("{name:text:x}", "{name.x:text}", "{name[0]:text}", "{ name:text }", "{0:text}"),
        *("[[ a", "a ]]", "[[ {name} ]]"),
    ],
)
def test_bad_slots_are_refused(source: str) -> None:
    with pytest.raises(GuardError):
        parse(source, COLUMNS)


_ANYTHING = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text())
)


@given(_ANYTHING, st.sampled_from(sorted(SPECS)))
def test_any_value_gives_one_printable_line(value: object, spec: str) -> None:
    text = render(f"a {{value:{spec}}} b", value=value)
    assert text.startswith("a ")
    assert text.endswith(" b")
    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in text)
