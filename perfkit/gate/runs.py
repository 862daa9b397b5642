"""Runs to compare, from captures or from the history, and whether they can be compared at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median

import numpy as np
import polars as pl

from perfkit import units
from perfkit.analysis.facts import cores
from perfkit.analysis.session import Tables
from perfkit.analysis.statistics.significance import MINIMUM_RUNS
from perfkit.errors import UsageError
from perfkit.gate.figures import figures
from perfkit.gate.result import Source

_FEW_RUNS = 5
_BUSY = 0.5
"""Ours: from so much of the processors on, what other programs do moves the figures of the runs."""
_BUSIER = 0.03
_IN_MOST = 0.8
"""Ours: by so much of the processors, and in so many pairs of runs, one side was the busier one."""
_OTHER_LOAD = 1.3
"""Runs whose rate of requests differs by more than this factor are not under the same load (our
own choice; latencies depend on the load)."""


@dataclass(frozen=True)
class Run:
    """One run: where it comes from, how it was recorded, and its figures."""

    source: Source
    host: str
    cores: int | None
    sampling: str
    """How spans were sampled, as JSON; `{}` when they were not."""
    labels: tuple[str, ...] = ()
    frame: pl.DataFrame | None = None
    tables: Tables | None = field(default=None, repr=False)

    @classmethod
    def of(cls, tables: Tables, name: str) -> Run:
        """Describe a capture; its figures are computed when asked for."""
        info = tables.capture.info
        source = Source(name, info.id, info.git_commit, None, info.created_ns)
        sampling = json.dumps(info.sampling, sort_keys=True)
        return cls(source, info.host, cores(tables), sampling, tables=tables)

    @cached_property
    def figures(self) -> pl.DataFrame:
        """The table of `figures.SCHEMA`."""
        if self.frame is not None:
            return self.frame
        assert self.tables is not None
        return figures(self.tables)

    @property
    def endpoints(self) -> set[str]:
        """Names of the endpoints that were called."""
        return set(self.figures.filter(kind="endpoint")["name"])

    @property
    def rate_per_s(self) -> float | None:
        """Requests a second."""
        return self._of_all("rate_per_s")

    def _of_all(self, measure: str) -> float | None:
        found = self.figures.filter(kind="all", measure=measure)["value"]
        return found[0] if len(found) else None

    @property
    def others_ratio(self) -> float | None:
        """Share of the machine's processors that programs took which were not recorded."""
        if self.tables is None or not self.cores:
            return None
        name, attributes, value = (pl.col(one) for one in ("name", "attributes", "value"))
        whole = (
            self.tables["metrics"]
            .filter(name == "system.cpu.utilization", attributes.is_null(), value.is_finite())
            .select(value.mean())
            .collect()
            .item()
        )
        own = self._of_all("cpu_cores")
        return None if whole is None or own is None else max(whole - own / self.cores, 0.0)


def refuse_repeated(runs: Iterable[Run]) -> None:
    """Raise UsageError when a capture is given twice: it would count as two runs."""
    seen: dict[str, str] = {}
    for run in runs:
        if run.source.id in seen:
            raise UsageError(
                f"{run.source.name} and {seen[run.source.id]} are the same capture",
                hint="repeated runs are captures of their own: record again",
            )
        seen[run.source.id] = run.source.name


def refuse_other_endpoints(before: Sequence[Run], after: Sequence[Run]) -> None:
    """Raise UsageError when the two sides have no endpoint in common."""
    sides = [set().union(*(run.endpoints for run in side)) for side in (before, after)]
    if not sides[0] & sides[1]:
        for runs, side, whose in zip((before, after), sides, ("baseline", "runs"), strict=True):
            if not side:
                raise UsageError(
                    f"nothing to compare: no request in the {whose}: "
                    f"{', '.join(run.source.name for run in runs)}",
                    hint="see in its report, under capture health, whether spans arrived; "
                    "perfkit record needs --otlp or --instrument for them",
                )
        names = [", ".join(sorted(side)[:5]) for side in sides]
        raise UsageError(
            f"nothing to compare: the baseline has endpoints {names[0]}; the runs have {names[1]}",
            hint="record the same service under the same load on both sides",
        )


def weaknesses(runs: Sequence[Run]) -> list[str]:
    """Return what makes the figures of runs say less than they seem to, compared or not."""
    found = []
    empty = [run.source.name for run in runs if not run.endpoints]
    if empty:
        found.append(f"without any request, so it counts for nothing: {', '.join(empty)}")
    busy = [ratio for run in runs if (ratio := run.others_ratio) is not None]
    if busy and median(busy) >= _BUSY:
        found.append(
            f"other programs took {units.percent(median(busy))} of the machine's processors "
            "while these runs were recorded: times vary with what those do; record where nothing "
            "else runs, or at least both sides in turn"
        )
    return found


def warnings(before: Sequence[Run], after: Sequence[Run]) -> list[str]:
    """Return what makes a comparison weaker than it looks."""
    found = []
    before, after = ([run for run in side if run.endpoints] for side in (before, after))
    fewest = min(len(before), len(after))
    if fewest < MINIMUM_RUNS:
        found.append(
            f"{len(before)} against {len(after)} runs: one run a side shows what differs, not "
            "whether that is more than noise; nothing can fail on it. Give five runs a side."
        )
    elif fewest < _FEW_RUNS:
        found.append(
            f"{len(before)} against {len(after)} runs: only large changes can be told from noise. "
            "Five runs a side find one of 16 % at 5 % noise."
        )
    missing = _absent(before, after)
    if missing:
        found.append(f"not called in the runs, but in the baseline: {missing}")
    new = _absent(after, before)
    if new:
        found.append(f"not in the baseline, so not compared: {new}")
    for what, sides in (
        ("sampled differently", [{run.sampling for run in side} for side in (before, after)]),
        ("recorded on different hosts", [{run.host for run in side} for side in (before, after)]),
        (
            "recorded on machines with other numbers of cores",
            [{str(run.cores) for run in side} for side in (before, after)],
        ),
    ):
        if sides[0] != sides[1]:
            names = " against ".join(", ".join(sorted(side)) or "unknown" for side in sides)
            found.append(f"{what}: {names}; differences may come from that")
    return found + _load(before, after) + _busier(before, after)


def _absent(of: Sequence[Run], among: Sequence[Run]) -> str:
    """Return the endpoints that all runs of one side have, and none of the other."""
    always = set.intersection(*(run.endpoints for run in of))
    names = sorted(always - set().union(*(run.endpoints for run in among)))
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _load(before: Sequence[Run], after: Sequence[Run]) -> list[str]:
    rates = []
    for side in (before, after):
        known = [run.rate_per_s for run in side if run.rate_per_s]
        if not known:
            return []
        rates.append(float(np.exp(np.mean(np.log(known)))))
    if max(rates) <= _OTHER_LOAD * min(rates):
        return []
    words = " against ".join(units.rate(rate) for rate in rates)
    return [f"under another load: {words} requests; latencies depend on it"]


def _busier(before: Sequence[Run], after: Sequence[Run]) -> list[str]:
    """Say when other programs took more of the machine beside one side: time is lost to them.

    They may be part of the service, as its database is, so this changes no verdict.
    """
    earlier, later = ([run.others_ratio for run in side] for side in (before, after))
    pairs = [(a, b) for a in earlier for b in later if a is not None and b is not None]
    if not pairs or len(pairs) < len(earlier) * len(later):
        return []
    medians = [median(side) for side in zip(*pairs, strict=True)]
    if abs(medians[1] - medians[0]) < _BUSIER or max(medians) < _BUSY:
        return []
    if sum(b > a for a, b in pairs) >= _IN_MOST * len(pairs):
        effect = "slower"
    elif sum(b < a for a, b in pairs) >= _IN_MOST * len(pairs):
        effect = "faster"
    else:
        return []
    in_baseline, in_runs = (units.percent(one) for one in medians)
    return [
        f"other programs took {in_runs} of the processors beside these runs, and {in_baseline} "
        "beside the baseline: unless they are part of the service, as its database is, they may be "
        f"what made it {effect}"
    ]
