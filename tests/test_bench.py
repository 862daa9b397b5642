"""The page on performance has a place for what each benchmark measures, and takes it there."""

from __future__ import annotations

import pytest

from bench.__main__ import BENCHMARKS, HEAD, PAGE, line, written
from bench.measure import Row


def test_every_benchmark_has_its_place_in_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in BENCHMARKS:
        made = written(page, name, [line(Row("this", "1 s", "that 2 s", "0.5×", "< 1×", True))])
        assert made.count("| this | 1 s | that 2 s | 0.5× | < 1× | yes |") == 1
        others = [one for one in BENCHMARKS if one != name]
        assert all(table(made, one) == table(page, one) for one in others)


def table(page: str, name: str) -> str:
    return page.partition(f"<!-- bench {name} -->")[2].partition("<!-- end -->")[0]


def test_a_page_without_the_place_is_refused() -> None:
    with pytest.raises(ValueError, match="0 places for the benchmark spans"):
        written("\n".join(HEAD), "spans", [])
