"""A service that no rule was written for, recorded with --instrument as its user would."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench import postgresql
from bench.bookshop.service import BOOKSHOP
from bench.planted.problem import names
from bench.planted.record import record
from bench.truth import Run

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(postgresql.installed() is None, reason="no PostgreSQL"),
]


def test_books_that_an_orm_loads_one_by_one_are_named_and_counted_once(tmp_path: Path) -> None:
    (problem,) = BOOKSHOP.planted("lazy_books")
    capture = tmp_path / "shop.perfkit"
    # In a thread: tests of the browser leave an event loop running in this one.
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(record, BOOKSHOP, capture, problem.name, 8, 1).result() > 0
    run = Run(capture)
    named = [one for one in run.findings if names(problem, one)]
    assert named[0].severity in ("high", "medium")
    # Thirty authors; SQLAlchemy and psycopg both report each query.
    assert "30 equal queries" in named[0].message
    peers = run.tables.frame("tree").filter(kind="client", component="unknown")
    assert peers.is_empty()
