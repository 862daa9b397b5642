"""Noise raises no alarm and true changes do: captures whose truth is known.

Each capture is generated, most of one minute with 30 requests or one reading a second. Where
nothing happens, what is counted are drifts, shifts and bursts of failures, in a hundred hours and
more of each kind: many series are made in one capture and then judged as if each were alone. Some
hundred captures go through the rules as well, as do all in which something happens.

A hundred hours are 6,000 captures of a minute, or a hundred of an hour: both are looked at. Those
of an hour have fewer requests a second, lest they take as long again.
"""

from __future__ import annotations

import math
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import lru_cache, partial
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from bench.measure import Row
from perfkit import model
from perfkit.analysis.series import shifts
from perfkit.analysis.series.timeline import bucket_width_ns
from perfkit.analysis.session import Tables
from perfkit.analysis.statistics.bursts import Burst, find_bursts
from perfkit.analysis.statistics.drift import SURE
from perfkit.analysis.statistics.shift_scan import Floats
from perfkit.capture import Capture, CaptureInfo
from perfkit.parts import conform
from perfkit.rules import evaluate, load
from perfkit.rules.model import BrokenRule, Rule

RULES = (
    "mem.growth",
    "errors.spike",
    "trend.slower",
    "trend.latency-step",
    "trend.latency-spike",
)
HOURS = 100
TRIES = 100
CAPTURES = 200
"""So many without any change go through the rules."""
SEED = 20_261_129
START_NS = 1_700_006_400_500_000_000
"""Half a second after midnight, as no capture begins with a whole second."""
_SECOND_NS = 10**9
_PER_S = 30
_PER_S_OF_HOURS = 10
_MINUTE, _HOUR = 60, 3600
_MEMORY = 2e8
_ROOM = 4e9
_GOAL = 1.0
_FEWEST, _LONG = 100, 10
"""Captures of a kind, however long; those of more minutes are made one by one, without rules."""
_TOGETHER = {"spans": 30, "metrics": 200}
"""Captures that are made in one, as its endpoints and instances; more series are not kept apart."""

Random = np.random.Generator
Frames = dict[str, pl.DataFrame]


class Kind(NamedTuple):
    """Captures of one kind."""

    what: str
    make: Callable[[Random], Frames]
    minutes: float
    found_by: tuple[str, ...]
    """What tells of the change; nothing where nothing happens. A name, or the beginning of one."""
    judged: bool = True
    table: str = "spans"
    times: float = 1.0
    """So many of the usual number of captures."""


class Generated(Capture):
    """A capture that is only in memory."""

    def __init__(self, frames: Frames) -> None:
        super().__init__(Path("noise"), CaptureInfo("noise", 0, cores=4))
        self._frames = {name: conform(model.BY_NAME[name], one) for name, one in frames.items()}

    def table(self, name: str) -> pl.LazyFrame:
        """Return a table, or an empty one."""
        return (self._frames[name] if name in self._frames else model.BY_NAME[name].empty()).lazy()


def remembering(random: Random, memory: float, count: int) -> Floats:
    """Return noise of deviation 1 that remembers a share of its value before; all: a walk."""
    steps = random.normal(0, 1, count)
    if memory == 1.0:
        return np.cumsum(steps)
    values = np.empty(count)
    values[0] = steps[0]
    for at in range(1, count):
        values[at] = memory * values[at - 1] + math.sqrt(1 - memory**2) * steps[at]
    return values


def gauge(
    values: Floats, step_s: int = 1, name: str = "process.memory.usage", unit: str = "By"
) -> Frames:
    """Return a capture of one metric; of memory, with its limit."""
    readings = pl.DataFrame(
        {
            "ts_ns": START_NS + np.arange(len(values)) * step_s * _SECOND_NS,
            "value": values,
            "name": name,
            "unit": unit,
        }
    )
    limit = pl.DataFrame(
        {"ts_ns": [START_NS], "value": [_ROOM], "name": ["system.memory.limit"], "unit": ["By"]}
    )
    both = pl.concat([readings, limit]) if unit == "By" else readings
    return {"metrics": both.with_columns(kind=pl.lit("gauge"), instance=pl.lit("pid 7"))}


def served(
    random: Random,
    seconds: int = 60,
    level: Callable[[Floats], Floats] | None = None,
    failing: Callable[[Floats], Floats] | None = None,
    rate: Callable[[Floats], Floats] | None = None,
    spread: Callable[[int], Floats] | None = None,
    per_s: int = _PER_S,
) -> Frames:
    """Return requests: when they come (s), the logarithm of how long they take, which fail.

    `level` gives what is added to the logarithms, `failing` the chance that each fails, `rate` the
    share of requests that come, all from the moments of requests in seconds.
    """
    at = np.sort(random.random(random.poisson(seconds * per_s))) * seconds
    if rate:
        at = at[random.random(len(at)) < rate(at)]
    logs = math.log(2e7) + (spread(len(at)) if spread else random.normal(0, 0.4, len(at)))
    if level:
        logs = logs + level(at)
    failed = random.random(len(at)) < (failing(at) if failing else 0.005)
    number = np.arange(len(at))
    spans = pl.DataFrame(
        {
            "trace_lo": number,
            "span_id": number + 1,
            "start_ns": START_NS + (at * _SECOND_NS).astype(np.int64),
            "duration_ns": np.exp(logs).astype(np.int64),
            "status": np.where(failed, "error", "ok"),
        }
    ).with_columns(
        trace_hi=pl.lit(0, pl.Int64),
        service=pl.lit("shop"),
        name=pl.lit("GET /a"),
        kind=pl.lit("server"),
        endpoint=pl.lit("GET /a"),
        adjusted_count=pl.lit(1.0),
    )
    return {"spans": spans}


def _steady(random: Random, seconds: int, **parts: Any) -> Frames:
    """Return requests of a capture in which nothing happens."""
    return served(random, seconds, per_s=_PER_S if seconds < _HOUR else _PER_S_OF_HOURS, **parts)


def _level_of_seconds(random: Random, memory: float, seconds: int) -> Frames:
    level = 0.3 * remembering(random, memory, seconds)
    return _steady(random, seconds, level=lambda at: level[at.astype(np.int64)])


def _level_of_requests(random: Random, memory: float, seconds: int) -> Frames:
    return _steady(random, seconds, spread=lambda count: 0.4 * remembering(random, memory, count))


def _batches(random: Random, each_s: float, size: float, seconds: int = _MINUTE) -> Frames:
    """Failures come together: so many in a row, from moments that have nothing to do with each
    other.
    """

    def failing(at: Floats) -> Floats:
        chance = np.zeros(len(at))
        for first in random.integers(0, len(at), random.poisson(seconds / each_s)):
            chance[first : first + random.geometric(1 / size)] = 1.0
        return chance

    return _steady(random, seconds, failing=failing)


def _memory(random: Random, course: Floats, noise: float) -> Frames:
    return gauge(_MEMORY + course + random.normal(0, noise, len(course)))


def _days(random: Random, days: int, odd: bool) -> Frames:
    minute = np.arange(days * 1440)
    values = 0.4 + 0.3 * np.sin(2 * np.pi * minute / 1440) + random.normal(0, 0.02, len(minute))
    if odd:
        values[(days - 1) * 1440 + 1000 :][:120] = 0.7
    return gauge(values, 60, "system.cpu.utilization", "1")


def _gauges() -> Iterator[Kind]:
    def remembered(memory: float, seconds: int = _MINUTE) -> Callable[[Random], Frames]:
        return lambda random: gauge(_MEMORY + 1e7 * remembering(random, memory, seconds))

    quiet = partial(Kind, found_by=(), table="metrics")
    yield quiet("gauge, independent", remembered(0.0), 1)
    for memory in (0.5, 0.9, 0.98):
        yield quiet(f"gauge that remembers {memory} a second", remembered(memory), 1)
    yield quiet("gauge that remembers 0.98, ten minutes", remembered(0.98, 600), 10)
    yield quiet("gauge that walks at random", remembered(1.0), 1, judged=False)
    yield quiet("gauge that walks, ten minutes", remembered(1.0, 600), 10, judged=False)
    yield quiet("gauge, independent, an hour", remembered(0.0, _HOUR), 60)
    for memory in (0.5, 0.9, 0.98):
        yield quiet(f"gauge that remembers {memory}, an hour", remembered(memory, _HOUR), 60)
    yield quiet("course of a day, 3 days", lambda random: _days(random, 3, False), 4320)


def _requests() -> Iterator[Kind]:
    for seconds, long in ((_MINUTE, ""), (_HOUR, ", an hour")):
        quiet = partial(Kind, minutes=seconds / 60, found_by=())
        yield quiet(
            f"requests, independent (Poisson, lognormal){long}", partial(_steady, seconds=seconds)
        )
        if seconds == _MINUTE:
            yield quiet(
                "latency by Pareto (1.5)",
                lambda random: served(
                    random, spread=lambda count: random.exponential(1 / 1.5, count)
                ),
            )
        for memory in (0.5, 0.9, 0.98):
            yield quiet(
                f"latency whose level remembers {memory} a second{long}",
                partial(_level_of_seconds, memory=memory, seconds=seconds),
            )
        for memory in (0.9, 0.98) if seconds == _MINUTE else (0.98,):
            yield quiet(
                f"latency that remembers {memory} a request{long}",
                partial(_level_of_requests, memory=memory, seconds=seconds),
            )
        for each_s, size in ((3.0, 3.0), (10.0, 8.0), (20.0, 20.0)):
            yield quiet(
                f"failures in rows of {size:g}, every {each_s:g} s{long}",
                partial(_batches, each_s=each_s, size=size, seconds=seconds),
            )


def _leaks() -> Iterator[Kind]:
    second = np.arange(60.0)
    leak = ("mem.growth",)
    for noise in (0.0, 2e6, 5e6):
        yield Kind(
            f"1 MB/s for a minute, noise {noise / 1e6:g} MB",
            lambda random, noise=noise: _memory(random, 1e6 * second, noise),
            1,
            leak,
        )
    yield Kind(
        "1 MB/s for a minute, in exponential steps",
        lambda random: gauge(_MEMORY + np.cumsum(random.exponential(1e6, 60))),
        1,
        leak,
    )
    yield Kind(
        "1 MB/s for a minute, two steps of 2 MB in 4 s",
        lambda random: gauge(_MEMORY + 2e6 * np.cumsum(random.random(60) < 0.5)),
        1,
        leak,
    )
    yield Kind(
        "1 MB/s for a minute, over a walk of 0.5 MB a second",
        lambda random: gauge(_MEMORY + 1e6 * second + 5e5 * remembering(random, 1.0, 60)),
        1,
        leak,
    )
    yield Kind(
        "1 MB/s for a minute, over a walk of 1 MB a second",
        lambda random: gauge(_MEMORY + 1e6 * second + 1e6 * remembering(random, 1.0, 60)),
        1,
        leak,
    )
    yield Kind(
        "0.1 MB/s for ten minutes, noise 5 MB",
        lambda random: _memory(random, 1e5 * np.arange(600.0), 5e6),
        10,
        leak,
        times=0.4,
    )


def _changes() -> Iterator[Kind]:
    def slower(factor: float, begin: int, end: int) -> Callable[[Floats], Floats]:
        return lambda at: np.where((at >= begin) & (at < end), math.log(factor), 0.0)

    def failing(share: float, begin: int, end: int) -> Callable[[Floats], Floats]:
        return lambda at: np.where((at >= begin) & (at < end), share, 0.05)

    shift, spike = ("shift latency",), ("errors.spike",)
    for minutes in (1, 5):
        half, whole = 30 * minutes, 60 * minutes
        yield Kind(
            f"latency 30 % longer in the last half of {minutes} min",
            lambda random, half=half, whole=whole: served(
                random, whole, level=slower(1.3, half, whole)
            ),
            minutes,
            shift,
        )
    yield Kind(
        "latency 3 times as long for 10 s",
        lambda random: served(random, level=slower(3.0, 20, 30)),
        1,
        shift,
    )
    yield Kind(
        "30 % fewer requests in the last half of 5 min",
        lambda random: served(random, 300, rate=lambda at: np.where(at < 150, 1.0, 0.7)),
        5,
        ("shift rate",),
    )
    yield Kind(
        "memory 30 % higher from the middle on",
        lambda random: _memory(random, 6e7 * (np.arange(60) >= 30), 5e6),
        1,
        ("shift resource",),
    )
    for length in (5, 10, 20):
        yield Kind(
            f"30 % fail for {length} s of a minute, else 5 %",
            lambda random, length=length: served(random, failing=failing(0.3, 30, 30 + length)),
            1,
            spike,
        )
    yield Kind(
        "all fail for 5 s of a minute, else 5 %",
        lambda random: served(random, failing=failing(1.0, 30, 35)),
        1,
        spike,
    )
    yield Kind(
        "30 % fail for 10 s, and rows of 3 every 3 s",
        lambda random: _burst_in_batches(random),
        1,
        spike,
    )
    for minutes in (1, 5):
        yield Kind(
            f"ever slower, by 50 % in {minutes} min",
            lambda random, whole=60 * minutes: served(
                random, whole, level=lambda at: np.log1p(0.5 * at / whole)
            ),
            minutes,
            ("trend.slower",),
        )
    yield Kind("a busy night in 5 days", lambda random: _days(random, 5, True), 7200, ("shift",))


def _burst_in_batches(random: Random) -> Frames:
    spans = _batches(random, 3.0, 3.0)["spans"]
    at = (spans["start_ns"].to_numpy() - START_NS) / _SECOND_NS
    burst = (at >= 30) & (at < 40) & (random.random(len(at)) < 0.3)
    failed = burst | (spans["status"] == "error").to_numpy()
    return {"spans": spans.with_columns(status=pl.Series(np.where(failed, "error", "ok")))}


NOISE = (*_gauges(), *_requests())
CHANGES = (*_leaks(), *_changes())
_KINDS = {kind.what: kind for kind in (*NOISE, *CHANGES)}


def seen(captures: list[Frames]) -> Counter[str]:
    """Return how many drifts, shifts and bursts of failures captures raise, each by itself."""
    (table,) = captures[0]
    name = {"spans": "endpoint", "metrics": "instance"}[table]
    frames = [
        one[table].with_columns(pl.lit(f"{name} {number}").alias(name))
        for number, one in enumerate(captures)
    ]
    series = shifts.all_series(Tables(Generated({table: pl.concat(frames)})))
    raised: Counter[str] = Counter()
    for one in series:
        if one.key[name] is None:
            continue
        raised[f"shift {one.key['kind']}"] += len(shifts.told(one, 1))
        p = shifts.trend_p(one) if one.baseline.shape == "drift" else None
        raised[f"drift {one.key['kind']}"] += p is not None and p < SURE
    if table == "spans":
        raised["burst"] = sum(len(_bursts(one["spans"])) for one in captures)
    return +raised


def _bursts(spans: pl.DataFrame) -> list[Burst]:
    start = spans["start_ns"].to_numpy() - START_NS
    bucket = start // bucket_width_ns(0, int(start.max()))
    failed = (spans["status"] == "error").to_numpy()
    count = int(bucket.max()) + 1
    errors = np.bincount(bucket, weights=failed, minlength=count)
    return find_bursts(np.bincount(bucket, minlength=count).astype(float), errors)


def alarms(frames: Frames) -> list[str]:
    """Return what a capture raises: shifts, and findings of medium severity or above."""
    tables = Tables(Generated(frames))
    raised = [f"shift {kind}" for kind in tables.frame("shifts")["kind"]]
    return raised + [
        outcome.rule.id
        for outcome in evaluate.run(_rules(), tables)
        for finding in outcome.findings
        if finding.severity in ("medium", "high", "critical")
    ]


@lru_cache(maxsize=1)
def _rules() -> tuple[Rule | BrokenRule, ...]:
    return tuple(rule for rule in load.load_rules() if rule.id in RULES)


def _random(what: str, number: int, seed: int) -> Random:
    """Numbers and seeds tell captures apart."""
    return np.random.default_rng([seed, *what.encode(), number])


def trial(what: str, number: int, seed: int) -> list[str]:
    """Return what one capture of a kind raises."""
    return alarms(_KINDS[what].make(_random(what, number, seed)))


def batch(what: str, first: int, count: int, seed: int) -> Counter[str]:
    """Return what so many captures of a kind raise, not by rules."""
    kind = _KINDS[what]
    return seen([kind.make(_random(what, number, seed)) for number in range(first, first + count)])


def trials(pool: Executor, kind: Kind, count: int, seed: int) -> list[list[str]]:
    """Return what each of so many captures raises."""
    return list(pool.map(trial, repeat(kind.what), range(count), repeat(seed), chunksize=8))


def false_alarms(pool: Executor, kind: Kind, hours: float, captures: int, seed: int) -> Row:
    """Return a row: how many false alarms there are in a hundred hours."""
    count = max(math.ceil(hours * 60 / kind.minutes), _FEWEST)
    short = kind.minutes <= _LONG
    together = _TOGETHER[kind.table] if short else 1
    firsts = range(0, count, together)
    counts = [min(together, count - first) for first in firsts]
    raised = sum(
        pool.map(batch, repeat(kind.what), firsts, counts, repeat(seed)), start=Counter[str]()
    )
    ruled = Counter(
        one
        for capture in trials(pool, kind, captures if short else 0, seed + 1)
        for one in capture
        if not one.startswith("shift")
    )
    passed = count * kind.minutes / 60
    rate = 100 * raised.total() / passed
    by_rules = f"; rules: {_listed(ruled) or 'none'} in {captures} more" if short else ""
    each = f" ({_listed(raised)})" if raised else ""
    return Row(
        f"nothing happens: {kind.what}",
        f"{rate:.3g} false alarm{'s' * (rate != 1)} in 100 h{each}",
        f"{passed:,.0f} h in {count:,} captures{by_rules}",
        "",
        "≤ 1" if kind.judged else "as few as can be",
        rate <= _GOAL if kind.judged else None,
    )


def _listed(count: Counter[str]) -> str:
    return ", ".join(f"{what} {number}" for what, number in count.most_common())


def power(kind: Kind, raised: list[list[str]]) -> Row:
    """Return a row: in how many captures what happens is told."""
    found = sum(any(one.startswith(kind.found_by) for one in capture) for capture in raised)
    return Row(
        f"{kind.what}: {', '.join(kind.found_by)}",
        f"{100 * found / len(raised):.0f} % found",
        f"{len(raised)} captures",
        "",
        "no goal",
        None,
    )


def rows(hours: float = HOURS, tries: int = TRIES, seed: int = SEED) -> list[Row]:
    """Measure false alarms, then the share of changes that are found."""
    # Not forked: another benchmark of this process may have started Polars' threads, and a child
    # that lacks them waits for them for ever.
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        quiet = [false_alarms(pool, kind, hours, CAPTURES, seed) for kind in NOISE]
        found = [
            power(kind, trials(pool, kind, max(round(tries * kind.times), 5), seed))
            for kind in CHANGES
        ]
    return quiet + found
