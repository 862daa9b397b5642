"""What a section is built from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from perfkit.analysis.session import Tables
from perfkit.report import episodes, population
from perfkit.report.baseline import Baseline
from perfkit.report.episodes import Episode
from perfkit.report.population import Population
from perfkit.rules import evaluate
from perfkit.rules.model import Finding, Followed, Outcome
from perfkit.rules.plan import Plan, plan


@dataclass(frozen=True)
class Context:
    """The capture's tables, what the rules said about them, and the title of the page."""

    tables: Tables
    outcomes: list[Outcome]
    title: str
    followed: Sequence[Followed] = ()
    """Recommendations that were done before, and what came of them."""
    baseline: Baseline | None = None
    """What the capture is compared with."""

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The one row of the table `facts`."""
        return self.tables.frame("facts").row(0, named=True)

    @cached_property
    def findings(self) -> list[Finding]:
        """All findings, the most important first."""
        return evaluate.findings(self.outcomes)

    @cached_property
    def plan(self) -> Plan:
        """The first things to do, replayed together."""
        return plan(self.outcomes, self.tables)

    @cached_property
    def population(self) -> Population:
        """The entries that the page can choose from."""
        entries = self.tables.where("requests", pl.col("entry"), *population.OF_REQUEST)
        return population.read(entries, self.facts)

    @cached_property
    def episodes(self) -> list[Episode]:
        """What left its baseline, and when: what users felt first."""
        return episodes.find(self.tables.frame("shifts").to_dicts())
