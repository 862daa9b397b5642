"""A report that is made shard by shard says what that of the capture in one piece says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfkit.analysis.filters import Filters
from perfkit.analysis.session import Tables
from perfkit.analysis.sharded import Division, ShardedTables
from perfkit.capture import Capture
from perfkit.engine import Here
from perfkit.report import population
from perfkit.report.render import build
from perfkit.report.sections import flame_requests
from perfkit.rules.evaluate import run
from perfkit.rules.load import load_rules
from perfkit.rules.model import Rule
from tests.report.incident import write_incident
from tests.report.page import Page


@pytest.fixture(scope="module")
def incident(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_incident(tmp_path_factory.mktemp("incident") / "incident.perfkit", seconds=60)


def _page(tables: Tables, rules: list[Rule]) -> Page:
    made = build(tables, run(rules, tables), title="incident")
    assert made.failed == []
    return Page(made.html)


def _paths(tree: dict[str, Any]) -> list[str]:
    paths: list[str] = []
    for label, parent in zip(tree["label"], tree["parent"], strict=True):
        above = paths[int(parent)] if parent >= 0 else ""
        paths.append(f"{above}/{tree['strings'][int(label)]}")
    return paths


def _cells(page: Page) -> list[tuple[Any, ...]]:
    flame = page.data["flame_requests"]
    paths, cells = _paths(flame["tree"]), flame["cells"]
    columns = [cells[name].tolist() for name in ("group", *flame_requests.SUMS)]
    return sorted(
        (paths[int(node)], *rest) for node, *rest in zip(cells["node"], *columns, strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize("coarse", [False, True])
def test_the_page_is_that_of_the_capture_in_one_piece(
    incident: Path, coarse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = load_rules()
    if coarse:
        monkeypatch.setattr(population, "EXACT_ENTRIES", 50)
        monkeypatch.setattr(flame_requests, "EXACT_CELLS", 2000)
        # What the others find is no coarser.
        rules = [rule for rule in rules if rule.category == "database"]
    parts = ShardedTables(Division(Capture.open(incident), Here(), 3))
    try:
        one = _page(Tables(Capture.open(incident), Filters()), rules)
        other = _page(parts, rules)
    finally:
        parts.close()
    assert one.text == other.text
    # Every span counts as itself, so sums are exact in any order.
    assert _cells(one) == _cells(other)
    for name in ("duration_ns", "endpoint", "start_ns"):
        first, second = (each.data["slow_requests"]["requests"][name] for each in (one, other))
        assert np.array_equal(first, second)
    first, second = (each.data["bottlenecks"]["what_if"]["values"] for each in (one, other))
    assert all(np.array_equal(*pair) for pair in zip(first, second, strict=True))
