"""Is it true? The demo's planted problems against what perfkit says about them.

`python -m bench.truth FOLDER` reads the rounds that `bench.demo_runs` recorded there (and records
what is missing), and prints two tables: for each problem the predicted saving beside that measured
by mending it, and what the rules find where it is alone, with precision and recall.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

import polars as pl

from bench.demo_runs import Load, alone, pairs
from perfkit.analysis.edits import Edits
from perfkit.analysis.session import Tables
from perfkit.analysis.what_if import Change, forecast
from perfkit.capture import Capture
from perfkit.demo.problems import PROBLEMS, Problem
from perfkit.rules import evaluate
from perfkit.rules.load import load_rules
from perfkit.rules.model import Finding

AGREES_WITHIN = 0.15
"""Of the request time of what a problem affects: how far the middle of the predicted range may be
from what was measured."""

# 97.5 % quantiles of Student's distribution for 1, 2, … degrees of freedom.
_STUDENT = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)

_NAMES: dict[str, Callable[[Finding], bool]] = {
    "cache": lambda f: _is(f, "cache.", "db.redundant-query") and "database-query" in _text(f),
    "pool": lambda f: _is(f, "pool.") and "inventory" in _text(f),
    "n_plus_one": lambda f: _is(f, "db.n-plus-one", "db.lazy") and "order_items" in _text(f),
    "index": lambda f: _is(f, "db.slow", "db.missing-index") and "citations" in _text(f),
    "serial": lambda f: _is(f, "calls.serial") and "plan-trip" in _text(f),
    "blocking": lambda f: _is(f, "py.event-loop", "py.sync") and "render_report" in _text(f),
    "hot_code": lambda f: _is(f, "py.tls-context", "net.tls") or "load_verify" in _text(f),
    "lock": lambda f: _is(f, "py.lock") and "acquire_lock" in _text(f),
    "leak": lambda f: _is(f, "mem."),
}
"""Problem -> whether a finding names it."""


def _is(finding: Finding, *beginnings: str) -> bool:
    return finding.rule_id.startswith(beginnings)


def _text(finding: Finding) -> str:
    return f"{finding.title} {finding.message} {finding.evidence}"


@dataclass
class Run:
    """One recorded configuration, and what the rules say about it."""

    path: Path

    def __post_init__(self) -> None:
        self.tables = Tables(Capture.open(self.path))
        self.outcomes = evaluate.run(load_rules(), self.tables)
        self.findings = evaluate.findings(self.outcomes)

    def requests(self) -> pl.DataFrame:
        """Return the entries with `label`, as the load generator names them, and `duration_ns`."""
        tree = self.tables.frame("tree").filter(pl.col("row") == pl.col("entry_row"))
        return tree.select("duration_ns", label=_LABEL)

    def change(self, problem: Problem) -> tuple[Change, list[Finding]]:
        """Return what the findings that name a problem would change together."""
        named = [one for one in self.findings if _NAMES[problem.name](one)]
        changes = {key: one for outcome in self.outcomes for key, one in outcome.changes.items()}
        chosen = [changes[one.fingerprint] for one in named if one.fingerprint in changes]
        return reduce(add, chosen, Change(Edits(), Edits())), named

    def growth_bytes(self) -> float:
        """Return how much the gateway's memory grew under load."""
        spans = self.tables.frame("tree")
        since, until = spans["start_ns"].min(), spans["end_ns"].max()
        memory = self.tables["metrics"].filter(
            pl.col("name") == "process.memory.usage", pl.col("ts_ns").is_between(since, until)
        )
        each = memory.sort("ts_ns").group_by("instance").agg(pl.col("value"))
        return max(
            (float(one[-1] - one[0]) for one in each.collect()["value"] if len(one)), default=0.0
        )


_LABEL = pl.coalesce(
    "entry_tool", pl.col("entry_endpoint").str.replace("{user_id:int}", "{user_id}", literal=True)
)


@dataclass(frozen=True)
class Saving:
    """Of the time of the affected requests in one round: predicted at least, at most, measured."""

    low: float
    high: float
    measured: float
    share: float
    """Their share of all request time."""

    @property
    def off(self) -> float:
        """How far the middle of the prediction is from what was measured."""
        return self.measured - (self.low + self.high) / 2


def saving(problem: Problem, before: Run, after: Run) -> Saving:
    """Predict from a run with the problem, and measure by one in which it is mended."""
    change, _ = before.change(problem)
    by = ["entry_tool", "entry_endpoint"]
    foreseen = forecast(before.tables, change, by).with_columns(label=_LABEL)
    mine = foreseen.filter(pl.col("label").is_in(problem.affects))
    sums = {
        when: float((mine["requests"] * mine[f"mean_{when}_ns"]).sum())
        for when in ("now", "low", "high")
    }
    mended = after.requests().group_by("label").agg(pl.col("duration_ns").mean())
    joined = before.requests().join(mended, on="label", suffix="_mended")
    left = float(joined.filter(pl.col("label").is_in(problem.affects))["duration_ns_mended"].sum())
    total = float((foreseen["requests"] * foreseen["mean_now_ns"]).sum())
    now = sums["now"]
    return Saving(1 - sums["high"] / now, 1 - sums["low"] / now, 1 - left / now, now / total)


def mean_and_margin(values: list[float]) -> tuple[float, float]:
    """Return the mean and half the width of its 95 % confidence interval; the unit is the run."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.nan
    margin = statistics.stdev(values) / math.sqrt(len(values))
    return mean, margin * _STUDENT[min(len(values) - 1, len(_STUDENT)) - 1]


def what_if_table(recorded: Iterable[tuple[str, Path, Path]]) -> Iterable[str]:
    """Yield the table of predicted and measured savings."""
    rows: dict[str, list[Saving]] = {}
    growth: list[tuple[float, float]] = []
    problems = {problem.name: problem for problem in PROBLEMS}
    for name, *paths in recorded:
        before, after = map(Run, paths)
        if name == "leak":
            growth.append((before.growth_bytes(), after.growth_bytes()))
        else:
            rows.setdefault(name, []).append(saving(problems[name], before, after))
    yield "| problem | of all time | predicted | measured (95 % CI) | off | agrees |"
    yield "|---|---|---|---|---|---|"
    for name, each in rows.items():
        low, high = (statistics.fmean(getattr(one, at) for one in each) for at in ("low", "high"))
        measured, margin = mean_and_margin([one.measured for one in each])
        off = measured - (low + high) / 2
        agrees = "yes" if abs(off) <= AGREES_WITHIN else "NO"
        yield (
            f"| {name} | {statistics.fmean(one.share for one in each):.0%} | {low:.0%}–{high:.0%} "
            f"| {measured:.0%} ± {margin:.0%} | {off:+.0%} | {agrees} |"
        )
    if growth:
        before_mib, after_mib = (statistics.fmean(one) / 2**20 for one in zip(*growth, strict=True))
        yield f"| leak | grows by {before_mib:.0f} MiB | no growth | {after_mib:.0f} MiB | | |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.truth", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", type=float, default=20, help="seconds of load in each run")
    options = parser.parse_args()
    folders = list(rounds(options.folder, options.rounds, options.duration, list(CONFIGURATIONS)))
    for line in what_if_table(folders):
        print(line, flush=True)


if __name__ == "__main__":
    main()
