"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from perfkit.resources import data_dir
from perfkit.rules import load
from perfkit.rules.model import Rule

REPOSITORY = Path(__file__).resolve().parent.parent

# Time limits of single examples would fail on a busy machine and say nothing about the code. Each
# run draws other examples, so there are few in one; `landing` always draws the same ones, and
# `thorough` as many as a fault may need.
hypothesis.settings.register_profile(
    "default",
    deadline=None,
    max_examples=10,
    suppress_health_check=[
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.function_scoped_fixture,
    ],
)
hypothesis.settings.register_profile(
    "landing",
    parent=hypothesis.settings.get_profile("default"),
    max_examples=50,
    derandomize=True,
    database=None,
)
hypothesis.settings.register_profile(
    "thorough", parent=hypothesis.settings.get_profile("default"), max_examples=2000
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def _read_shipped_rules_once() -> None:
    """Read each shipped rule once for all tests of this process: the files stay as they are."""
    read, shipped = load.load_rule, data_dir("rules")
    once = cache(read)

    def load_rule(path: Path, *, tests: bool = False) -> Rule:
        return (once if path.is_relative_to(shipped) else read)(path, tests=tests)

    load.load_rule = load_rule


_read_shipped_rules_once()


@pytest.fixture(scope="session", autouse=True)
def _without_waiting_for_the_disk() -> Iterator[None]:
    """Do not sync files of this process: no machine crashes between a test's writing and reading.

    Processes that tests start do it for real.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        patch.setattr(os, "fdatasync", lambda fd: None)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real data beside the checkout; skips where it is absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data in ../shared/data is not on this machine")
    return folder


@pytest.fixture(scope="session")
def playwright_driver() -> Iterator[Any]:
    """Start Playwright once: a thread can have only one at a time."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        yield driver
