"""Root cause: how often the service with the fault is among the first, on labelled faults.

One day of the Train-Ticket shop with 28 injected faults (IntelligentDDS/Nezha, MIT), beside what is
published for that system (Yu et al., FSE '23, table 3) and other methods on the same spans. The
baseline of a fault is what lies before it, after the fault before; where that is less than 2,000
spans, the fault-free reference time. Then faults of simulated systems, strong, weak and seen badly.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import polars as pl

from bench import rca_graded, rca_peers, rca_signal, rca_simulated
from bench.measure import Row
from perfkit import model
from perfkit.analysis.comparison import contrast, root_cause, standing, votes
from perfkit.capture import Capture, CaptureInfo
from perfkit.parts import conform

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "rca"
NAME = "trainticket-2023-01-29"
LONGEST_NS = 180 * 10**9
BASELINE_NS = 300 * 10**9
FEWEST_SPANS = 2000
PUBLISHED = (
    ("MicroRank", (15.6, 24.4, 35.6)),
    ("Nezha without logs", (42.2, 44.4, 44.4)),
    ("Nezha with logs, metrics and traces", (86.7, 97.8, 97.8)),
)
AT = (1, 3, 5)
CLAIMS = ("right", "wrong", "among several", "not among several", "no one")
"""The service with the fault is named alone, or another one is; or several are, or no one."""
_LEVEL = 0.05
_MORE = ("status", "adjusted_count", "instance", "db_system", "peer")


class Spans(Capture):
    """A capture that has only these spans, in memory."""

    def __init__(self, spans: pl.DataFrame) -> None:
        super().__init__(Path("rca"), CaptureInfo("rca", 0))
        columns = spans.select(
            trace_hi=pl.lit(0),
            trace_lo="trace_id",
            span_id="span_id",
            parent_id="parent_id",
            service="service",
            name="name",
            start_ns="start_ns",
            duration_ns=pl.col("end_ns") - pl.col("start_ns"),
        )
        if "span_kind" in spans.columns:
            columns = columns.with_columns(spans["span_kind"].alias("kind"))
        columns = columns.with_columns(spans[name] for name in _MORE if name in spans.columns)
        self._spans = conform(model.SPANS, columns)

    def table(self, name: str) -> pl.LazyFrame:
        """Return the spans, or an empty table."""
        return (self._spans if name == "spans" else model.BY_NAME[name].empty()).lazy()


def cases() -> Iterator[tuple[dict[str, Any], pl.DataFrame, pl.DataFrame]]:
    """Yield each fault with the spans before and during it."""
    spans = pl.read_parquet(DATA / f"{NAME}.parquet")
    faults = json.loads((DATA / f"{NAME}.faults.json").read_text(encoding="utf-8"))
    reference = spans.filter(kind="construct")
    day = spans.filter(kind="rca")
    began = [_ns(fault["inject_time"]) for fault in faults]
    start = pl.col("start_ns")
    for number, fault in enumerate(faults):
        at = began[number]
        free = max([at - BASELINE_NS, *(one + LONGEST_NS for one in began[:number])])
        before = day.filter(start >= free, start < at)
        if before.height < FEWEST_SPANS:
            before = reference
        yield fault, before, day.filter(start >= at, start < at + LONGEST_NS)


def _ns(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()) * 10**9


class Found(NamedTuple):
    """What is said of one fault."""

    place: int
    """Rank of the service that has it; beyond all that count when it is not ranked."""
    claim: str
    """One of `CLAIMS`."""


def found(fault: dict[str, Any], before: pl.DataFrame, during: pl.DataFrame) -> Found:
    """Look for the service that has the fault."""
    ranking, service = ranked(before, during), fault["service"]
    named = ranking.filter(ranking["verdict"] != standing.NO_EVIDENCE)
    right = service in named["component"]
    place = rank_of(service, ranking["component"].to_list())
    if named.is_empty():
        return Found(place, "no one")
    if standing.CAUSE in named["verdict"]:
        return Found(place, "right" if right else "wrong")
    return Found(place, "among several" if right else "not among several")


def place(fault: dict[str, Any], before: pl.DataFrame, during: pl.DataFrame) -> int:
    """Return the rank of the service that has the fault."""
    return found(fault, before, during).place


def ranked(before: pl.DataFrame, during: pl.DataFrame) -> pl.DataFrame:
    """Return the ranking of `root_cause`."""
    return root_cause.rank(contrast.of_captures([Spans(before)], [Spans(during)])).ranking


def rank_of(service: str, ranking: list[str]) -> int:
    """Return the place of a service, from 1 on; beyond all that count when it has none."""
    return ranking.index(service) + 1 if service in ranking else max(len(ranking), *AT) + 1


def accuracy(places: list[int]) -> tuple[float, ...]:
    """Return AC@1, AC@3 and AC@5 in per cent."""
    return tuple(100 * sum(place <= at for place in places) / len(places) for at in AT)


def rows() -> list[Row]:
    """Rank the services for every fault."""
    if not DATA.is_dir():
        missing = Row("root cause", "–", "no data in ../shared/data/rca", "–", "–", None)
        return [missing, *_simulated()]
    known = list(cases())
    all_found = [found(*case) for case in known]
    places = [one.place for one in all_found]
    types = [fault["type"] for fault, _, _ in known]
    result = [
        Row(
            f"root cause, {kind} ({types.count(kind)} faults): AC@1/3/5",
            _written(accuracy([one for one, of in zip(places, types, strict=True) if of == kind])),
            "published only in total",
            "–",
            "–",
            None,
        )
        for kind in dict.fromkeys(types)
    ]
    total = accuracy(places)
    for name, published in PUBLISHED:
        judged = name != PUBLISHED[-1][0]  # it reads logs and metrics, which are not in the data
        result.append(
            Row(
                f"root cause, all {len(places)} faults: AC@1/3/5",
                _written(total),
                f"{name} {_written(published)}",
                _written(tuple(a / b for a, b in zip(total, published, strict=True)), "×"),
                "≥ 1× at 1, 3 and 5" if judged else "–",
                all(a >= b for a, b in zip(total, published, strict=True)) if judged else None,
            )
        )
    result += [_peer(name, ranker, known, total) for name, ranker in rca_peers.PEERS.items()]
    result.append(_with_other_constants(known))
    result.append(_visible(known))
    result.append(_claims("of these faults", all_found))
    return result + _simulated()


def _peer(name: str, ranker: rca_peers.Ranker, known: list[Any], own: tuple[float, ...]) -> Row:
    """Rank by another method on the same windows."""
    total = accuracy([rank_of(fault["service"], ranker(*sides)) for fault, *sides in known])
    ratio = "/".join(f"{a / b:.1f}" if b else "∞" for a, b in zip(own, total, strict=True))
    return Row(
        f"root cause, all {len(known)} faults: AC@1/3/5",
        _written(own),
        f"{name}, on the same spans: {_written(total)}",
        f"{ratio}×",
        "–",
        None,
    )


def _claims(what: str, all_found: list[Found]) -> Row:
    """Say how often who is named as the cause is not the cause."""
    count = Counter(one.claim for one in all_found)
    named = count["right"] + count["wrong"]
    wrong = count["wrong"] / named if named else 0.0
    return Row(
        f"named as the cause, {what} ({len(all_found)})",
        "; ".join(f"{claim} {count[claim]}" for claim in CLAIMS),
        "the first of the ranking, however weak",
        f"{100 * wrong:.1f} % of those named wrong",
        f"≤ {_LEVEL:.0%} wrong",
        wrong <= _LEVEL,
    )


def _simulated() -> list[Row]:
    """Rank the services of simulated systems: by type of fault, by strength, and seen badly."""
    strong = [(case.fault["type"], found(*case)) for case in rca_simulated.cases()]
    graded = [(fault, found(*case)) for fault, case in rca_graded.graded()]
    badly = [(case.fault["type"], found(*case)) for case in rca_graded.badly_seen()]
    nothing = [found(*case) for case in rca_graded.nothing()]
    return [
        *_by_type("simulated", strong),
        _claims("simulated", [one for _, one in strong]),
        *(_by_strength(kind, graded) for kind in rca_graded.TYPES),
        _total("simulated by strength, all", [one for _, one in graded]),
        _claims("simulated by strength", [one for _, one in graded]),
        *_by_type(f"{rca_graded.STRONG:g}× in all calls", badly),
        _claims("strong but seen badly", [one for _, one in badly]),
        _claims("where nothing was changed", nothing),
    ]


def _by_type(what: str, all_found: list[tuple[str, Found]]) -> list[Row]:
    groups = {kind: [one for of, one in all_found if of == kind] for kind, _ in all_found}
    groups["all"] = [one for _, one in all_found]
    return [_total(f"{what}, {kind}", group) for kind, group in groups.items()]


def _total(what: str, group: list[Found]) -> Row:
    return Row(
        f"root cause, {what} ({len(group)} faults): AC@1/3/5",
        _written(accuracy([one.place for one in group])),
        "simulated systems of 5 to 40 services",
        "–",
        "–",
        None,
    )


def _by_strength(kind: str, graded: list[tuple[rca_graded.Fault, Found]]) -> Row:
    """Write the first places of one type in a line."""
    cells = []
    for share in rca_graded.SHARES:
        first = [
            accuracy(
                [
                    one.place
                    for fault, one in graded
                    if (fault.kind, fault.factor, fault.share) == (kind, factor, share)
                ]
            )[0]
            for factor in rca_graded.FACTORS
        ]
        cells.append(f"{share:.0%} of calls {'/'.join(f'{one:.0f}' for one in first)}")
    factors = "/".join(f"{factor:g}" for factor in rca_graded.FACTORS)
    return Row(
        f"root cause, simulated {kind} of {factors} times as slow: AC@1",
        "; ".join(cells) + " %",
        f"{rca_graded.SYSTEMS} systems, {rca_graded.REQUESTS} requests a side",
        "–",
        "–",
        None,
    )


def _visible(known: list[Any]) -> Row:
    """Say how many of the faults can be seen in the spans of their service at all."""
    p = [rca_signal.visible(fault["service"], *sides) for fault, *sides in known]
    seen = sum(one < _LEVEL for one in p)
    return Row(
        f"faults of which any operation of their service differs at all, p < {_LEVEL:.0%}",
        f"{seen} of {len(p)}",
        "what can be told from these spans",
        "–",
        "–",
        None,
    )


def _with_other_constants(known: list[Any]) -> Row:
    """Rank again with other constants: a result that hangs on one of them is no result."""
    ranged = []
    for level, z in itertools.product((0.95, 0.995), (1.28, 2.33)):
        with (
            mock.patch.multiple(votes, NORMAL_LEVEL=level, SURE_Z=z),
            mock.patch.multiple(standing, SURE_Z=z),
        ):
            ranged.append(accuracy([place(*case) for case in known]))
    low, high = (tuple(limit(one) for one in zip(*ranged, strict=True)) for limit in (min, max))
    return Row(
        "root cause with percentiles 95 and 99.5 and bounds of 90 and 99 %: AC@1/3/5",
        f"{_written(low)} to {_written(high)}",
        "the constants that are shipped: percentile 99, bound of 95 %",
        "–",
        "–",
        None,
    )


def _written(values: tuple[float, ...], unit: str = " %") -> str:
    form = "{:.1f}"
    return "/".join(form.format(value) for value in values) + unit
