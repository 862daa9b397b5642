"""Is it true? The demo's planted problems against what perfkit says about them.

    python -m bench.truth what-if FOLDER     # predicted saving beside that measured by mending
    python -m bench.truth rules FOLDER       # what is found where a problem is alone

Both record into the folder what it lacks (`bench.demo_runs`; a round takes about 18 and 6 minutes)
and print a table in Markdown. Request time is that of the recorded spans: what a request waited
before the service read it, as behind a blocked event loop, is in the last column alone, that of the
clients.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import polars as pl

from bench.demo_runs import Load, alone, pairs
from bench.measure import leave_on_sigterm
from bench.turns import Turns
from perfkit.analysis.replay.edits import Edits
from perfkit.analysis.replay.what_if import Change, forecast
from perfkit.analysis.session import Tables
from perfkit.capture import Capture
from perfkit.demo.load import SCENARIOS
from perfkit.demo.problems import PROBLEMS, Problem
from perfkit.rules import evaluate
from perfkit.rules.load import load_rules
from perfkit.rules.model import Finding, Outcome, Rule

AGREES_WITHIN = 0.15
"""Of the request time of what a problem affects: how far the middle of the predicted range may be
from what was measured."""

# 97.5 % quantiles of Student's distribution for 1, 2, … degrees of freedom.
_STUDENT = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)

_NAMES: dict[str, Callable[[Finding], bool]] = {
    "cache": lambda f: _is(f, "cache.", "db.slow", "db.redundant") and "usage_events" in _text(f),
    "pool": lambda f: _is(f, "pool.", "db.transaction") and "check_stock" in _text(f),
    "n_plus_one": lambda f: _is(f, "db.n-plus-one", "db.chatty") and "order_items" in _text(f),
    "index": lambda f: _is(f, "db.slow", "db.missing-index") and "citations" in _text(f),
    "serial": lambda f: _is(f, "calls.serial") and "plan-trip" in _text(f),
    "blocking": lambda f: _is(f, "py.event-loop") and "render_report" in _text(f),
    "hot_code": lambda f: _is(f, "py.tls-context") or "create_default_context" in _text(f),
    "lock": lambda f: _is(f, "py.lock") and "acquire_lock" in _text(f),
    "leak": lambda f: _is(f, "mem."),
}
"""Problem -> whether a finding names it: a rule that should find it, at the right place."""

_ALSO: dict[str, Callable[[Finding], bool]] = {
    "cache": lambda f: _is(f, "cache.") and "database-query" in _text(f),
    "pool": lambda f: _is(f, "pool.") and ("inventory" in _text(f) or f.key["pool"] == "sqlite"),
}

OF_THE_MACHINE = ("cpu.", "psi.", "disk.", "net.retransmits", "net.listen")
"""Rules about the machine. Where other work keeps it busy they are right, and no problem of the
demo: they are counted apart."""

_AMOUNTS = {
    "min_repeat_time": 0,
    "min_mean": 2_000_000,
    "min_share": 0.002,
    "min_saved": 1_000_000,
    "min_wait": 0,
    "min_wait_share": 0.0,
}
"""Parameters by which a rule leaves out what costs little. A run is short, and one problem may cost
3 % of it: lowered, so that the prediction is judged and not the threshold."""


def _is(finding: Finding, *beginnings: str) -> bool:
    return finding.rule_id.startswith(beginnings)


def _text(finding: Finding) -> str:
    return f"{finding.title} {finding.message} {finding.evidence}"


def names(problem: str, finding: Finding) -> bool:
    """Whether a finding names a problem."""
    also = _ALSO.get(problem)
    return _NAMES[problem](finding) or (also is not None and also(finding))


class Run:
    """One capture, and what the rules say about it."""

    def __init__(self, path: Path, *, small_too: bool = False) -> None:
        self.tables = Tables(Capture.open(path))
        rules = load_rules()
        if small_too:
            rules = [_sensitive(rule) for rule in rules]
        self.outcomes: list[Outcome] = evaluate.run(rules, self.tables)
        self.findings = evaluate.findings(self.outcomes)

    def requests(self) -> pl.DataFrame:
        """Return the entries with `label`, as the load names them, `start_ns` and `duration_ns`."""
        tree = self.tables.frame("tree").filter(pl.col("row") == pl.col("entry_row"))
        return tree.select("start_ns", "duration_ns", label=_LABEL)

    def change(self, problem: Problem) -> tuple[Change, list[Finding]]:
        """Return what the findings that name a problem would change together."""
        named = [one for one in self.findings if names(problem.name, one)]
        changes = {key: one for outcome in self.outcomes for key, one in outcome.changes.items()}
        chosen = [changes[one.fingerprint] for one in named if one.fingerprint in changes]
        return reduce(add, chosen, Change(Edits(), Edits())), named


def _sensitive(rule: Rule) -> Rule:
    params = {
        name: replace(one, value=_AMOUNTS.get(name, one.value)) for name, one in rule.params.items()
    }
    return replace(rule, params=params)


_LABEL = pl.coalesce(
    "entry_tool", pl.col("entry_endpoint").str.replace("{user_id:int}", "{user_id}", literal=True)
)


@dataclass(frozen=True)
class Predicted:
    """What a change would save of the time of the affected requests, at least and at most."""

    low: float
    high: float
    share: float
    """Their share of all request time."""


def predicted(problems: Sequence[Problem], before: Run) -> Predicted:
    """Predict what mending the problems saves, from a run that has them."""
    changes = [before.change(problem)[0] for problem in problems]
    by = ["entry_tool", "entry_endpoint"]
    change = reduce(add, changes)
    foreseen = forecast(before.tables, change, by).with_columns(label=_LABEL)
    mine = foreseen.filter(_affected(problems))
    now, low, high = (
        float((mine["requests"] * mine[f"mean_{when}_ns"]).sum()) for when in ("now", "low", "high")
    )
    total = float((foreseen["requests"] * foreseen["mean_now_ns"]).sum())
    return Predicted(1 - high / now, 1 - low / now, now / total)


def _affected(problems: Sequence[Problem]) -> pl.Expr:
    labels = {label for problem in problems for label in problem.affects}
    return pl.col("label").is_in(list(labels)) | pl.lit("all" in labels)


def slice_sums(problems: Sequence[Problem], run: Run, slices: pl.DataFrame) -> pl.DataFrame:
    """Return `number`, `requests` and `spent_ns` of the affected requests of each slice."""
    requests = run.requests().filter(_affected(problems)).sort("start_ns")
    inside = requests.join_asof(slices.sort("start_ns"), on="start_ns", strategy="backward")
    return (
        inside.filter(pl.col("start_ns") <= pl.col("end_ns"))
        .group_by("number")
        .agg(requests=pl.len(), spent_ns=pl.col("duration_ns").sum())
    )


def ratio_and_margin(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """Return the share of the sum that is saved, and half the width of its 95 % interval.

    The unit is the slice, before and after under the same calls; each is left out once (the
    jackknife, Quenouille 1956).
    """
    whole = 1 - sum(after) / sum(before)
    count = len(before)
    if count < 2:
        return whole, math.nan
    left = [1 - (sum(after) - after[at]) / (sum(before) - before[at]) for at in range(count)]
    centre = statistics.fmean(left)
    deviation = math.sqrt((count - 1) / count * sum((one - centre) ** 2 for one in left))
    return whole, deviation * _STUDENT[min(count - 1, len(_STUDENT)) - 1]


def what_if_table(
    recorded: Iterable[tuple[str, Path, Path, list[dict[str, Any]]]],
) -> Iterable[str]:
    """Yield the table of predicted and measured savings."""
    problems = {problem.name: [problem] for problem in PROBLEMS}
    problems["all"] = [problem for problem in PROBLEMS if problem.name != "leak"]
    foreseen: dict[str, list[Predicted]] = {}
    spans: dict[str, list[pl.DataFrame]] = {}
    clients: dict[str, list[tuple[float, float]]] = {}
    for name, *paths, turns in recorded:
        before, after = Run(paths[0], small_too=True), Run(paths[1])
        mine = problems[name]
        foreseen.setdefault(name, []).append(predicted(mine, before))
        both = [
            slice_sums(mine, run, pl.DataFrame([one for one in turns if one["side"] == side]))
            for side, run in (("before", before), ("after", after))
        ]
        spans.setdefault(name, []).append(both[0].join(both[1], on="number", suffix="_mended"))
        clients.setdefault(name, []).extend(_waited(mine, turns))
    yield "| problem | requests | predicted | measured (95 % CI) | off | agrees | for the client |"
    yield "|---|---|---|---|---|---|---|"
    for name, each in foreseen.items():
        low, high = (statistics.fmean(getattr(one, at) for one in each) for at in ("low", "high"))
        slices = pl.concat(spans[name])
        measured, margin = ratio_and_margin(
            slices["spent_ns"].to_list(), slices["spent_ns_mended"].to_list()
        )
        waited, waited_margin = ratio_and_margin(*zip(*clients[name], strict=True))
        off = measured - (low + high) / 2
        agrees = "yes" if abs(off) <= AGREES_WITHIN else "NO"
        yield (
            f"| {name} | {slices['requests'].sum()} | {low:.0%}–{high:.0%} "
            f"| {measured:.0%} ± {margin:.0%} | {off:+.0%} | {agrees} "
            f"| {waited:.0%} ± {waited_margin:.0%} |"
        )


def _waited(
    problems: Sequence[Problem], turns: Sequence[dict[str, Any]]
) -> list[tuple[float, float]]:
    labels = {label for problem in problems for label in problem.affects}
    sums: dict[tuple[str, int], float] = {
        (one["side"], one["number"]): sum(
            sum(each) for label, each in one["latency_s"].items() if {label, "all"} & labels
        )
        for one in turns
    }
    numbers = sorted({number for _, number in sums})
    return [(sums["before", number], sums["after", number]) for number in numbers]


def rules_table(recorded: Iterable[tuple[str, Path]]) -> Iterable[str]:
    """Yield what is found at medium or above, with precision and recall."""
    yield "| planted | named | first | false at medium or above | of the machine |"
    yield "|---|---|---|---|---|"
    right = false = named_count = planted_count = 0
    for name, path in recorded:
        planted = {"all": list(_NAMES), "none": []}.get(name, [name])
        serious = [one for one in Run(path).findings if one.severity in ("high", "medium")]
        machine = [one for one in serious if one.rule_id.startswith(OF_THE_MACHINE)]
        found = [one for one in serious if one not in machine]
        true = [one for one in found if any(names(each, one) for each in planted)]
        wrong = [one for one in found if one not in true]
        named = [each for each in planted if any(names(each, one) for one in true)]
        first = "" if not planted else "yes" if found and found[0] in true else "no"
        right, false = right + len(true), false + len(wrong)
        named_count, planted_count = named_count + len(named), planted_count + len(planted)
        lacking = [each for each in planted if each not in named]
        said = f"{len(named)} of {len(planted)}" + (
            f", not {', '.join(lacking)}" if lacking else ""
        )
        yield (f"| {name} | {said} | {first} | {ids(wrong)} | {ids(machine)} |")
    yield score(right, false, named_count, planted_count)


def score(right: int, false: int, named: int, planted: int) -> str:
    """Return precision, of findings, and recall, of planted problems, as a line."""
    return (
        f"\nPrecision {right / max(1, right + false):.0%} ({right} of {right + false} findings), "
        f"recall {named / max(1, planted):.0%} ({named} of {planted})."
    )


def ids(findings: list[Finding]) -> str:
    """Return what findings are called in a table."""
    return ", ".join(f"{one.rule_id} ({one.title})" for one in findings) or "none"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.truth", description=__doc__)
    parser.add_argument("table", choices=("what-if", "rules"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--duration", type=float, default=20, help="seconds of load (rules)")
    parser.add_argument("--slices", type=int, default=10, help="turns of each side (what-if)")
    options = parser.parse_args()
    if options.table == "what-if":
        turns = Turns(SCENARIOS, slices=options.slices)
        lines = what_if_table(pairs(options.folder, options.rounds, turns))
    else:
        lines = rules_table(alone(options.folder, options.rounds, Load(options.duration)))
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    leave_on_sigterm()
    main()
