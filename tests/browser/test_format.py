"""Numbers read the same in the page and in Python; text is made harmless in both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perfkit import units
from perfkit.report.text import visible
from tests.browser import synthetic

pytestmark = pytest.mark.browser


def _numbers() -> list[float]:
    rng = np.random.default_rng(3)
    magnitudes = 10 ** rng.uniform(-7, 16, 3000)
    # Exact ties, where Python rounds to even and JavaScript does not by itself.
    ties = [0.5, 1.5, 2.5, 12.5, 0.125, 2.125, 2.375, 10.25, 10.75, 99.5, 100.5, 0.0625, 0.03125]
    edges = [0, 1, 999.4, 999.5, 999.6, 1000, 1023, 1024, 1536, 99.94, 99.95, 9.995, 9.996, 1e-5]
    plain = [
        *magnitudes.tolist(),
        *ties,
        *edges,
        *(t * 1e3 for t in ties),
        *(t * 1e6 for t in ties),
    ]
    whole = [float(round(value)) for value in plain]
    return [*plain, *whole, *(-value for value in plain[:500])]


@pytest.mark.parametrize("name", ["number", "duration", "size", "percent", "rate"])
def test_numbers_are_written_as_in_python(open_page: Any, name: str) -> None:
    values = _numbers()
    page = open_page(synthetic.build(requests=5, span_nodes=10, code_nodes=10, samples=10))
    written = page.evaluate("([name, values]) => values.map(perfkit.format[name])", [name, values])
    expected = [getattr(units, name)(value) for value in values]
    wrong = [each for each in zip(values, written, expected, strict=True) if each[1] != each[2]]
    assert not wrong[:5]


def test_missing_numbers_are_a_dash(open_page: Any) -> None:
    page = open_page(synthetic.build(requests=5, span_nodes=10, code_nodes=10, samples=10))
    written = page.evaluate(
        "['number', 'duration', 'size', 'percent', 'rate'].flatMap("
        "(name) => [null, undefined, NaN, Infinity].map(perfkit.format[name]))"
    )
    assert set(written) == {units.MISSING}


def test_text_is_made_visible_as_in_python(open_page: Any) -> None:
    page = open_page(synthetic.build(requests=5, span_nodes=10, code_nodes=10, samples=10))
    texts = [
        chr(code) for code in [*range(0x300), *range(0x2000, 0x2070), 0xFEFF, 0xE0041, 0x1F600]
    ]
    written = page.evaluate("(texts) => texts.map((text) => perfkit.format.text(text))", texts)
    assert written == [visible(text) for text in texts]


def test_plotly_gets_no_markup(open_page: Any) -> None:
    page = open_page(synthetic.build(requests=5, span_nodes=10, code_nodes=10, samples=10))
    written = page.evaluate("perfkit.format.plotly('<b>a</b> & <a href=\"x\">b</a>\\n')")
    assert written == '&lt;b&gt;a&lt;/b&gt; &amp; &lt;a href="x"&gt;b&lt;/a&gt; '
