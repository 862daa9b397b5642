"""Budgets over the runs: each run is measured, and the middle run is held to the limit."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from perfkit.analysis.session import Tables
from perfkit.gate import budgets
from perfkit.gate.budgets import Budget
from perfkit.gate.result import Check

_FEW = 20
"""Percentiles of fewer requests are said to be of so few."""


def checks(budget: Budget, runs: Sequence[Tables]) -> list[Check]:
    """Return one check a thing that the budget matches; one of state `error` where none does."""
    readings: dict[str, list[budgets.Reading]] = {}
    for tables in runs:
        for reading in budgets.measure(budget, tables):
            readings.setdefault(reading.thing, []).append(reading)
    if not readings:
        return [
            Check(
                "budget",
                budget.text,
                "",
                "error",
                "Matches nothing, so nothing was checked.",
                help=budgets.known(runs[0], budget),
            )
        ]
    return [_check(budget, thing, found, len(runs)) for thing, found in readings.items()]


def _check(budget: Budget, thing: str, found: Sequence[budgets.Reading], runs: int) -> Check:
    values = [reading.value for reading in found]
    value = median(values)
    over = sum(not budget.holds(one) for one in values)
    words = budget.write(value)
    if len(values) > 1:
        words += f" (median of {len(values)} runs, {over} beyond the limit)"
    if len(values) < runs:
        words += f"; absent from {runs - len(values)} of {runs} runs"
    fewest = min((one.requests for one in found if one.requests is not None), default=_FEW)
    if budget.level is not None and fewest < _FEW:
        words += f"; over no more than {fewest} requests in a run"
    return Check(
        "budget",
        budget.text,
        thing,
        "passed" if budget.holds(value) else "failed",
        words,
        measure=budget.function,
        value=value,
        limit=budget.limit,
        runs=len(values),
    )
