from __future__ import annotations

from pathlib import Path

import pytest

from perfkit.analysis.session import Tables
from perfkit.report.render import build
from perfkit.rules.evaluate import run
from perfkit.rules.load import load_rules
from tests.report.build import open_tables, write_capture
from tests.report.page import Page


@pytest.fixture(scope="session")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_capture(tmp_path_factory.mktemp("report") / "small.perfkit")


@pytest.fixture(scope="session")
def tables(capture: Path) -> Tables:
    return open_tables(capture)


@pytest.fixture(scope="session")
def page(tables: Tables) -> Page:
    made = build(tables, run(load_rules(), tables), title="small")
    assert made.failed == []
    return Page(made.html)
