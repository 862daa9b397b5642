from __future__ import annotations

import json
from html import unescape
from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.report.columns import guess
from perfkit.report.templates import attribute, environment, heading, link, value


@pytest.mark.parametrize(
    ("content", "name", "text"),
    [
        (1_500_000, "p95_ns", "1.5 ms"),
        (2048, "rss_bytes", "2 KiB"),
        (0.125, "error_ratio", "12 %"),
        (0.5, "rate_per_s", "30/min"),
        (1234, "calls", "1,234"),
        (True, "sequential", "yes"),
        (None, "p95_ns", "–"),
        (float("nan"), "p95_ns", "–"),
        (["a", "b"], "callers", "a, b"),
        (list("abcdefg"), "callers", "a, b, c, d, e and 2 more"),
        ({"rate": 100, "wait_ns": 5}, "settings", "rate 100, wait 5 ns"),
        (1_795_416_395_000_000_000, "since_ns", "2026-11-23 06:46:35.000Z"),
        (9805, "pid", "9805"),
        (9805, "most_held_by_thread", "9805"),
        (0.31, "change_ratio", "+31 %"),
        (-0.31, "change_ratio", "−31 %"),
        ("text", "name", "text"),
    ],
)
def test_values_are_written_by_the_unit_in_their_name(content: Any, name: str, text: str) -> None:
    assert value(content, name) == text


def test_headings_drop_the_unit() -> None:
    assert [heading(name) for name in ("p95_ns", "rate_per_s", "max_repeats")] == [
        "p95",
        "rate",
        "max repeats",
    ]


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "//host", "", "file:"])
def test_only_web_addresses_become_links(url: str) -> None:
    assert link(url) is None
    assert link("https://example.org/") == "https://example.org/"


def render(source: str, **values: Any) -> str:
    return environment().from_string(source).render(**values)


def test_what_is_printed_is_escaped_and_cleaned() -> None:
    hostile = "<img src=x onerror=alert(1)> \u202e password=hunter2 \x00"
    assert render("{{ text }}", text=hostile) == (
        "&lt;img src=x onerror=alert(1)&gt; \\u202e password=[masked] \\x00"
    )


def test_a_missing_name_in_a_template_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        render("{{ nothing }}")


@given(st.lists(st.text(max_size=20)))
def test_an_attribute_comes_back_as_json(texts: list[str]) -> None:
    html = render('<a data-x="{{ texts | attribute }}">', texts=texts)
    assert html.count('"') == 2
    assert "<" not in html[1:]
    inside = json.loads(unescape(html[len('<a data-x="') : -2]))
    assert [text for text in inside if "\\" not in text] == [
        text for text, shown in zip(texts, inside, strict=True) if "\\" not in shown
    ]


def test_attributes_are_masked() -> None:
    assert "hunter2" not in attribute({"password": "hunter2"})


def test_columns_of_evidence_are_guessed() -> None:
    rows = [{"row": 1, "entry_row": 2, "name": "a", "p95_ns": 5}, {"name": "b", "p95_ns": None}]
    columns = guess(rows)
    assert [(column.key, column.title, column.kind) for column in columns] == [
        ("name", "name", "text"),
        ("p95_ns", "p95", "number"),
    ]


def test_long_text_can_be_opened() -> None:
    source = '{% from "sections/_macros.html" import long %}{{ long(text) }}'
    assert render(source, text="short <b>").strip() == "<bdi>short &lt;b&gt;</bdi>"
    html = render(source, text="<x" * 500)
    assert html.count("<details") == 1
    assert "&lt;x" * 500 in html
