"""Budgets: `p95(endpoint=/tools/invoke) < 300ms`. The grammar, and how a run is measured by it.

    budget   = function [ "(" selector { "," selector } ")" ] ( "<" | "<=" | ">" | ">=" ) limit
             | "sql(" SELECT … ")" ( "<" | "<=" | ">" | ">=" ) number
    selector = ( "endpoint" | "tool" | "service" ) "=" ( text | 'text' | "text" )

Functions over requests: `p50` … `p99.9`, `mean`, `max` (a duration), `error_ratio` (2 % or 0.02),
`rate` (requests a second), `count`, `queries` and `max_queries` (database calls per request). Over
the recorded processes together: `cpu` (cores, mean) and `memory` (largest). In a selector `*`
stands for anything, and each thing that matches is held to the limit by itself; without one, all
requests together are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from perfkit import model, units
from perfkit.analysis.session import Tables, derived_tables
from perfkit.analysis.vector.percentiles import codes, quantiles
from perfkit.analysis.vector.summary import summarise_groups, window_ns
from perfkit.errors import UsageError, system_error
from perfkit.gate.figures import figures
from perfkit.sql.execute import Limits, TooMuch, reason
from perfkit.sql.guard import check_query
from perfkit.sql.scopes import GuardError

_EXAMPLES = "write for example: p95(endpoint=/tools/invoke) < 300ms, or error_ratio < 1%"
_BUDGET = re.compile(r"\s*([a-z_]+[0-9.]*)\s*(?:\((.*)\))?\s*(<=|>=|<|>)\s*([^<>()=]+?)\s*", re.S)
_SELECTOR = re.compile(
    r"""\s*(\w+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^,'"]*[^,'"\s]))\s*(?:,|\Z)""", re.S
)
_PERCENTILE = re.compile(r"p([0-9]{1,2}(?:\.[0-9]{1,3})?)\Z")
_LONGEST = 4000
_READ = (
    *("entry", "service", "endpoint", "tool", "duration_ns", "status", "db_count"),
    "adjusted_count",
)
"""Columns of `requests`: all of them take several GiB of a large capture."""
_SQL_SECONDS = 60.0

_HOLDS: Mapping[str, Callable[[float, float], bool]] = {
    "<": lambda value, limit: value < limit,
    "<=": lambda value, limit: value <= limit,
    ">": lambda value, limit: value > limit,
    ">=": lambda value, limit: value >= limit,
}


class Unit(NamedTuple):
    """How a limit is read, and a value written."""

    read: Callable[[str], float]
    write: Callable[[float], str]


def _duration(text: str) -> float:
    if re.fullmatch(r"[0-9.]+", text) and float(text or 0) != 0:
        raise ValueError(f"{text!r} has no unit; write for example {text}ms or {text}s")
    return units.parse_duration(text)


def _ratio(text: str) -> float:
    value = _number(text.removesuffix("%").rstrip()) / (100 if text.endswith("%") else 1)
    if value > 1:
        raise ValueError(f"{text!r} is no share of requests; write 2% or 0.02")
    return value


def _rate(text: str) -> float:
    return _number(re.sub(r"\s*/\s*s\Z", "", text))


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if not np.isfinite(value):
        raise ValueError(f"{text!r} is not a number")
    return value


_TIME = Unit(_duration, units.duration)
_COUNT = Unit(_number, units.number)
_FUNCTIONS: Mapping[str, Unit] = {
    "mean": _TIME,
    "max": _TIME,
    "error_ratio": Unit(_ratio, units.percent),
    "rate": Unit(_rate, units.rate),
    "count": _COUNT,
    "queries": _COUNT,
    "max_queries": _COUNT,
    "cpu": Unit(_number, lambda value: f"{units.number(value)} cores"),
    "memory": Unit(lambda text: float(units.parse_size(text)), units.size),
    "sql": _COUNT,
}
_RESOURCES = {"cpu": "cpu_cores", "memory": "memory_bytes"}
_SELECTORS = ("endpoint", "tool", "service")


@dataclass(frozen=True)
class Budget:
    """A limit, read. `level` is that of a percentile; `sql` the text of a query."""

    text: str
    function: str
    selectors: Mapping[str, str]
    operator: str
    limit: float
    level: float | None = None
    sql: str = ""

    def holds(self, value: float) -> bool:
        """Whether a value keeps to the limit."""
        return _HOLDS[self.operator](value, self.limit)

    def write(self, value: float) -> str:
        """Return a value as text, in the unit of the limit."""
        return _TIME.write(value) if self.level is not None else self._unit.write(value)

    @property
    def _unit(self) -> Unit:
        return _FUNCTIONS[self.function]


class Reading(NamedTuple):
    """What one run says about one thing: its value, over how many requests (None: not of them)."""

    thing: str
    value: float
    requests: int | None


def parse(text: str) -> Budget:
    """Read a budget. Raises UsageError, which says where it is wrong."""
    match = _BUDGET.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise UsageError(f"budget {text!r}: not a budget", hint=_EXAMPLES)
    function, inside, operator, limit = match.groups()
    percentile = _PERCENTILE.fullmatch(function)
    level = float(percentile[1]) / 100 if percentile else None
    if (level is None and function not in _FUNCTIONS) or level == 0:
        known = ", ".join(("p50 … p99.9", *_FUNCTIONS))
        raise UsageError(f"budget {text!r}: no function {function!r}", hint=f"known: {known}")
    unit = _TIME if level is not None else _FUNCTIONS[function]
    try:
        value = unit.read(limit)
    except ValueError as error:
        raise UsageError(f"budget {text!r}: {error}") from error
    name = " ".join(text.split())
    if function == "sql":
        _checked(inside or "", text)
        return Budget(name, function, {}, operator, value, sql=inside or "")
    selectors = _selectors(inside or "", text)
    if function in _RESOURCES and selectors:
        raise UsageError(
            f"budget {text!r}: {function} is of all recorded processes",
            hint="use sql(SELECT … FROM metric_stats …) to choose among them",
        )
    return Budget(name, function, selectors, operator, value, level)


def _selectors(inside: str, text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    place = 0
    while inside[place:].strip():
        match = _SELECTOR.match(inside, place)
        if match is None or match[1] not in _SELECTORS or match[1] in found:
            raise UsageError(
                f"budget {text!r}: {inside[place:].strip()!r} selects nothing",
                hint=f"write name=value, once each, of: {', '.join(_SELECTORS)}",
            )
        found[match[1]] = next(value for value in match.groups()[1:] if value is not None)
        place = match.end()
    return found


def _checked(sql: str, text: str) -> None:
    try:
        query = check_query(sql, _columns())
    except GuardError as error:
        raise UsageError(f"budget {text!r}: SQL: {error}", hint=error.hint) from error
    if len(query.columns) != 1:
        raise UsageError(
            f"budget {text!r}: the query has {len(query.columns)} columns", hint="select one number"
        )


def _columns() -> dict[str, list[str]]:
    captured = {name: list(table.schema) for name, table in model.BY_NAME.items()}
    return captured | {name: list(table.columns) for name, table in derived_tables().items()}


def measure(budget: Budget, tables: Tables) -> list[Reading]:
    """Return what a run says: one reading a thing that matches, none where nothing does."""
    if budget.function == "sql":
        return _of_query(budget, tables)
    if budget.function in _RESOURCES:
        wanted = pl.col("measure") == _RESOURCES[budget.function]
        return [Reading("", row, None) for row in figures(tables).filter(wanted)["value"]]
    return _of_requests(budget, tables)


def _of_query(budget: Budget, tables: Tables) -> list[Reading]:
    try:
        query = check_query(budget.sql, _columns())
        answer = tables.answer(query, {}, Limits(seconds=_SQL_SECONDS))
    except (TooMuch, pl.exceptions.PolarsError) as error:
        wrong = UsageError(f"budget {budget.text!r}: SQL: {reason(error)}")
        raise system_error(error) or wrong from error
    if answer.height > 1 or not (answer.dtypes[0].is_numeric() or answer.dtypes[0] == pl.Null):
        raise UsageError(
            f"budget {budget.text!r}: the query gives {answer.height} rows of {answer.dtypes[0]}",
            hint="select one number, of one row: SELECT MAX(…) …",
        )
    value = answer.item() if answer.height else None
    return [] if value is None else [Reading("", float(value), None)]


def _of_requests(budget: Budget, tables: Tables) -> list[Reading]:
    requests = select(tables.columns("requests", *_READ), budget.selectors)
    if requests.is_empty():
        return []
    keys = [name for name in ("service", "endpoint", "tool") if name in budget.selectors]
    code, things = codes(requests.with_columns(all=pl.lit("")), keys or ["all"])
    values = _values(budget, requests, code, things.height, window_ns(tables["tree"]) / 1e9)
    seen = np.bincount(code, minlength=things.height)
    names = (
        " ".join(units.MISSING if part is None else part for part in row)
        for row in things.iter_rows()
    )
    return [
        Reading(name.strip(), float(value), int(count))
        for name, value, count in zip(names, values, seen, strict=True)
        if np.isfinite(value)
    ]


def _values(
    budget: Budget, requests: pl.DataFrame, code: np.ndarray, groups: int, seconds: float
) -> Sequence[float]:
    weight = requests["adjusted_count"].to_numpy()
    if budget.level is not None:
        lengths = requests["duration_ns"].to_numpy()
        return list(quantiles(code, lengths, weight, groups, [budget.level])[:, 0])
    of = summarise_groups(requests, code, groups)
    calls = requests["db_count"].to_numpy()
    if budget.function == "max_queries":
        most = np.zeros(groups)
        np.maximum.at(most, code, calls)
        return list(most)
    if budget.function == "queries":
        total = np.bincount(code, weight * calls, groups)
        return list(total / np.maximum(np.bincount(code, weight, groups), 1.0))
    if budget.function == "rate":
        return list(of["count"].to_numpy() / seconds if seconds > 0 else np.full(groups, np.nan))
    column = {"mean": "mean_ns", "max": "max_ns"}.get(budget.function, budget.function)
    return of[column].cast(pl.Float64).to_list()


def select(requests: pl.DataFrame, selectors: Mapping[str, str]) -> pl.DataFrame:
    """Return the requests that match. Without an endpoint or a service only entries count.

    An endpoint is named with its method or by its path alone.
    """
    if not {"endpoint", "service"} & selectors.keys():
        requests = requests.filter("entry")
    for name, pattern in selectors.items():
        anything = "^" + ".*".join(re.escape(part) for part in pattern.split("*")) + "$"
        matches = pl.col(name).str.contains(anything)
        if name == "endpoint":
            path = pl.col(name).str.splitn(" ", 2).struct.field("field_1")
            matches = matches | path.str.contains(anything).fill_null(False)
        requests = requests.filter(matches.fill_null(False))
    return requests


def known(tables: Tables, budget: Budget) -> str:
    """Return what there is to match instead, for a budget that matches nothing."""
    if budget.function in _RESOURCES:
        return "the capture has no such metric: record with a pid, not with OTLP alone"
    if budget.function == "sql":
        return "the query gives no row, or null"
    if not tables.has_rows("requests"):
        return (
            "there is no request in the run: perfkit record needs --otlp or --instrument for "
            "spans, and the load must come while it records"
        )
    parts = []
    for name in budget.selectors or ("endpoint",):
        values = tables.columns("requests", name)[name].drop_nulls().value_counts(sort=True)[name]
        parts.append(f"{name}s: {', '.join(values.head(8).to_list()) or 'none'}")
    return "there are " + "; ".join(parts)
