"""What the slowest requests of an endpoint share and its typical ones do not: `slow_traits`; and
what its failed requests share and the others do not: `failure_traits`.

Slow and typical are as in `contrast`. Failed requests are compared in the same way: in what follows
they stand for the slow ones, and the others for the typical ones.

For every trait (an attribute's value, a host, a tool, a component that is called, code that ran …)
its share among both is compared by Fisher's exact test, corrected for all traits of all endpoints
by Holm's method: one false lead sends an engineer the wrong way. Two traits together are listed
where the second still tells slow from typical among the requests that have the first, and both
together tell more than either.

The test takes requests as independent. Within one capture they are not quite: a trait that only
happened to go with a bad minute looks like its cause. It says what goes together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from perfkit.analysis.comparison.contrast import FEWEST_REQUESTS, tail_side
from perfkit.analysis.comparison.request_traits import (
    CODE,
    did,
    how_failed,
    large,
    texts_and_numbers,
)
from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.statistics.fisher import more_frequent
from perfkit.analysis.statistics.significance import LEVEL, adjusted
from perfkit.analysis.vector.forest import Bools, Ints
from perfkit.analysis.vector.percentiles import Floats

MOST_SLOW, MOST_TYPICAL = 1000, 2000
"""Requests of one endpoint that are looked at, chosen by their id where there are more."""

MOST_ENDPOINTS = 50
"""Endpoints that are looked at, those with the most request time."""

MOST_ROWS = 10
"""Rows of one kind for one endpoint."""

FEWEST_WITH = 5
"""A trait of fewer requests, slow and typical together, is not tested."""

MINIMUM_LIFT = 1.5
"""House limit: less than half again as frequent is no lead, however sure.

Where most requests fail nothing can be so frequent: then lacking it may be, among the others.
"""

_BETTER = 1.1
"""Two traits together have a lift at least this many times that of either."""

_PAIRED = 12
"""So many of an endpoint's single traits are tried in pairs."""

_ONLY_WHERE_KNOWN = (CODE,)
"""Keys that only some requests can have at all (those that were sampled): compared among these."""

_KEYS = (
    *("tool", "k8s.pod.name", "container.name", "host.name", "instance", "peer", "db_system"),
    *("pid", "http_status", "status"),
)
"""Of traits of the very same requests the one that says most is listed: these first, in this order.
A pod can be looked up by its name, but an id that was drawn when a process began cannot."""

_RANK = {key: rank for rank, key in enumerate(_KEYS)}

Row = dict[str, Any]

COLUMNS = {
    "service": "service that serves the endpoint",
    "endpoint": "the endpoint",
    "kind": "`was`: what the request was or carried; `did`: whom it called and where its time was, "
    "which may be how it was slow rather than why",
    "key": "what: an attribute, `tool`, `instance`, `peer`, `calls` (a component), `calls to` and "
    "`ms in` a component, `span`, `event`, `code` (where most of the sampled time was) …",
    "value": "its value; `> x` for a number that few typical requests exceed",
    "key_2": "a second trait that goes with the first; null for a single one",
    "value_2": "its value",
    "slow": "slow requests looked at that have it",
    "typical": "typical requests looked at that have it",
    "slow_ratio": "share of the slow requests that have it: its support",
    "typical_ratio": "share of the typical ones",
    "lift": "how many times as frequent among the slow as among slow and typical together",
    "p_adjusted": "p of Fisher's exact test, corrected for all traits of all endpoints (Holm)",
    "also": "other traits of the very same requests, five at most",
}

_SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys(
        ("service", "endpoint", "kind", "key", "value", "key_2", "value_2"), pl.String()
    ),
    **dict.fromkeys(("slow", "typical"), pl.Int64()),
    **dict.fromkeys(("slow_ratio", "typical_ratio", "lift", "p_adjusted"), pl.Float64()),
    "also": pl.List(pl.String()),
}


_FAILED = {
    "slow": "failed",
    "typical": "ok",
    "slow_ratio": "failed_ratio",
    "typical_ratio": "ok_ratio",
}
"""Columns of `slow_traits`, and as what they stand in `failure_traits`."""

_FAILED_COLUMNS = {
    **{_FAILED.get(name, name): text for name, text in COLUMNS.items()},
    "kind": "`was`: what the request was or carried; `did`: how it failed, whom it called and "
    "where its time was, which may be a consequence",
    "failed": "failed requests looked at that have it",
    "ok": "requests looked at that did not fail and have it",
    "failed_ratio": "share of the failed requests that have it: its support",
    "ok_ratio": "share of those that did not fail",
    "lift": "how many times as frequent among the failed as among all requests of the endpoint",
}


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `slow_traits`: per endpoint the largest difference of shares first."""
    return _found(tables, did(), lambda requests: tail_side(requests)[0])


def compute_failed(tables: Tables) -> pl.DataFrame:
    """Return the table `failure_traits`: per endpoint the largest difference of shares first."""
    return _found(tables, did() | how_failed(), _failed_side, "status").rename(_FAILED)


def _failed_side(requests: pl.DataFrame) -> Ints:
    """Return which requests failed (1) and which did not (0); -1 where an endpoint has too few."""
    enough = pl.len().over("service", "endpoint") >= FEWEST_REQUESTS
    failed = (pl.col("status") == "error").cast(pl.Int64)
    side: Ints = requests.select(pl.when(enough).then(failed).otherwise(-1)).to_series().to_numpy()
    return side


def _found(
    tables: Tables, outcome: pl.Expr, side_of: Callable[[pl.DataFrame], Ints], *columns: str
) -> pl.DataFrame:
    """Return traits of the requests of which `side_of` makes 1, that those of 0 have less often.

    It is given times and weights of requests, and the other `columns` that it needs.
    `outcome` says which of them may be how such a request went rather than why.
    """
    chosen, slow_share = _chosen(tables, side_of, *columns)
    if chosen.is_empty():
        return pl.DataFrame(schema=_SCHEMA)
    texts, numbers = texts_and_numbers(tables, chosen)
    traits = pl.concat([texts, large(numbers, chosen)])
    tested = _tested(traits, chosen, slow_share, outcome)
    lifts = pl.max_horizontal("lift", "lift_without")
    singles = tested.filter(pl.col("p_adjusted") < LEVEL, lifts >= MINIMUM_LIFT)
    if singles.is_empty():
        return pl.DataFrame(schema=_SCHEMA)
    members = traits.join(chosen.select("request", "endpoint_id"), on="request")
    rows = []
    for (endpoint, kind), found in singles.group_by("endpoint_id", "kind", maintain_order=True):
        of = _Endpoint.read(chosen.filter(endpoint_id=endpoint), found, members)
        share = slow_share[int(str(endpoint))]
        pairs = of.pairs(share, tests=tested.height) if kind == "was" else []
        rows += _best(of.singles() + pairs)
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


_OF_REQUEST = (
    *("request_row", "entry", "service", "endpoint", "tool", "instance", "status", "http_status"),
    *("duration_ns", "adjusted_count"),
)
_ID = ("trace_hi", "trace_lo", "span_id")


def _chosen(
    tables: Tables, side_of: Callable[[pl.DataFrame], Ints], *columns: str
) -> tuple[pl.DataFrame, list[float]]:
    """Return the requests to look at, numbered, and the true share of slow ones by endpoint.

    Of all requests few columns are read, and of those to look at the others.
    """
    kept = ("service", "endpoint", "duration_ns", "adjusted_count")
    requests = tables.columns("requests", *kept, *columns)
    side = side_of(requests)
    told = np.flatnonzero(side >= 0)
    requests = requests[told].with_columns(slow=pl.Series(side[told] == 1))
    busiest = (
        requests.group_by("service", "endpoint")
        .agg(
            total=(pl.col("duration_ns") * pl.col("adjusted_count")).sum(),
            share=pl.col("adjusted_count").filter("slow").sum() / pl.col("adjusted_count").sum(),
        )
        .filter(pl.col("share") > 0)
        .sort("total", "service", "endpoint", descending=[True, False, False])
        .head(MOST_ENDPOINTS)
        .with_row_index("endpoint_id")
        .drop("total")
    )
    # The hash of the id chooses the same requests every time, whatever their order.
    number = tables["requests"].select(pl.struct(_ID).hash(seed=0)).collect().to_series()[told]
    most = pl.when("slow").then(MOST_SLOW).otherwise(MOST_TYPICAL)
    place = pl.col("hash").rank("ordinal").over("endpoint_id", "slow")
    chosen = (
        requests.select("service", "endpoint", "slow", hash=number, place=pl.Series(told))
        .join(busiest, on=["service", "endpoint"], nulls_equal=True, maintain_order="left")
        .drop("service", "endpoint")
        .filter(place <= most)
        .with_columns(request=pl.int_range(pl.len(), dtype=pl.Int64))
    )
    about = _requests(tables, chosen["place"].to_numpy())
    return chosen.drop("hash", "place").hstack(about), busiest["share"].to_list()


def _requests(tables: Tables, places: Ints) -> pl.DataFrame:
    """Return what is to be known of some requests, by their places in order."""
    found, first = [], 0
    for shard in tables.shards_of("requests"):
        some = shard["requests"].select(*_OF_REQUEST, *_ID).collect()
        here = slice(*np.searchsorted(places, (first, first + some.height)))
        found.append(some[places[here] - first])
        first += some.height
    return pl.concat(found)


def _tested(
    traits: pl.DataFrame, chosen: pl.DataFrame, slow_share: list[float], outcome: pl.Expr
) -> pl.DataFrame:
    """Return the traits of every endpoint with their counts, shares, lift and p."""
    side = chosen.select("request", "endpoint_id", "service", "endpoint", "slow", "adjusted_count")
    placed = traits.join(side, on="request")
    partial = placed["key"].is_in(_ONLY_WHERE_KNOWN)
    known = placed.filter(partial).unique(["request", "key"])
    groups = pl.concat(
        [
            _counts(side, ["endpoint_id"], "all_").with_columns(partial=pl.lit(None, pl.String)),
            _counts(known, ["endpoint_id", "key"], "all_").rename({"key": "partial"}),
        ],
        how="diagonal_relaxed",
    )
    tested = (
        _counts(placed, ["service", "endpoint", "endpoint_id", "key", "value"], "")
        .filter(pl.col("slow") + pl.col("typical") >= FEWEST_WITH)
        .with_columns(
            partial=pl.when(pl.col("key").is_in(_ONLY_WHERE_KNOWN)).then("key"),
        )
        .join(groups, on=["endpoint_id", "partial"], nulls_equal=True, maintain_order="left")
    )
    share = pl.Series(np.array(slow_share)[tested["endpoint_id"].to_numpy()])
    slow = pl.col("slow_weight") / pl.col("all_slow_weight")
    typical = pl.col("typical_weight") / pl.col("all_typical_weight")
    counts = [tested[name].to_numpy() for name in ("slow", "all_slow", "typical", "all_typical")]
    p = more_frequent(counts[0], counts[1], counts[0] + counts[2], counts[1] + counts[3])
    return (
        tested.with_columns(
            slow_ratio=slow.fill_nan(0.0),
            typical_ratio=typical.fill_nan(0.0),
            p_adjusted=pl.Series(adjusted(p, "holm")),
            kind=pl.when(outcome).then(pl.lit("did")).otherwise(pl.lit("was")),
        )
        .with_columns(
            lift=_lift(pl.col("slow_ratio"), pl.col("typical_ratio"), share),
            lift_without=_lift(1 - pl.col("typical_ratio"), 1 - pl.col("slow_ratio"), 1 - share),
        )
        .sort(
            "endpoint_id",
            "kind",
            pl.col("slow_ratio") - pl.col("typical_ratio"),
            pl.col("key").replace_strict(_RANK, default=len(_KEYS)),
            "key",
            "value",
            descending=[False, True, True, False, False, False],
        )
    )


def _counts(rows: pl.DataFrame, keys: list[str], prefix: str) -> pl.DataFrame:
    slow, weight = pl.col("slow"), pl.col("adjusted_count")
    counted = rows.group_by(keys, maintain_order=True).agg(
        slow.sum().cast(pl.Int64).alias("n"),
        (~slow).sum().cast(pl.Int64).alias("typical"),
        weight.filter(slow).sum().alias("slow_weight"),
        weight.filter(~slow).sum().alias("typical_weight"),
    )
    counted = counted.rename({"n": "slow"})
    return counted.rename({name: prefix + name for name in counted.columns if name not in keys})


def _lift(slow: pl.Expr, typical: pl.Expr, share: pl.Series) -> pl.Expr:
    return slow / (slow * share + typical * (1 - share))


class _Endpoint(NamedTuple):
    """The traits of one endpoint, the best first: which of its requests have them."""

    traits: pl.DataFrame
    has: Bools
    """A row a request, a column a trait."""
    slow: Bools
    weight: Floats
    also: list[list[str]]

    @classmethod
    def read(cls, chosen: pl.DataFrame, found: pl.DataFrame, members: pl.DataFrame) -> _Endpoint:
        """Take the best traits; of those with the very same requests the first stands for all."""
        place = np.zeros(int(chosen["request"].max()) + 1, dtype=np.int64)  # type: ignore[arg-type]
        place[chosen["request"].to_numpy()] = np.arange(chosen.height)
        has = np.zeros((chosen.height, found.height), dtype=np.bool_)
        numbered = found.select("endpoint_id", "key", "value", trait=pl.int_range(pl.len()))
        mine = members.join(numbered, on=["endpoint_id", "key", "value"])
        has[place[mine["request"].to_numpy()], mine["trait"].to_numpy()] = True
        first: dict[bytes, int] = {}
        also: dict[int, list[str]] = {}
        for trait, (key, value) in enumerate(found.select("key", "value").iter_rows()):
            one = first.setdefault(has[:, trait].tobytes(), trait)
            also.setdefault(one, [])
            if one != trait:
                also[one].append(f"{key}={value}")
        kept = list(also)[: max(MOST_ROWS, _PAIRED)]
        return cls(
            found[kept],
            has[:, kept],
            chosen["slow"].to_numpy(),
            chosen["adjusted_count"].to_numpy(),
            [also[trait][:5] for trait in kept],
        )

    def singles(self) -> list[Row]:
        """Return the rows of the table for single traits."""
        names = [name for name in _SCHEMA if name not in ("key_2", "value_2", "also")]
        rows = self.traits.select(names).to_dicts()
        return [
            {**row, "key_2": None, "value_2": None, "also": also}
            for row, also in zip(rows, self.also, strict=True)
        ]

    def pairs(self, slow_share: float, tests: int) -> list[Row]:
        """Return the rows for two traits that together tell more than either."""
        singles = self.singles()
        count = min(len(singles), _PAIRED)
        first, second = np.triu_indices(count, k=1)
        if not len(first):
            return []
        has, slow = self.has[:, :count], self.slow
        both = [_together(has[of]) for of in (slow, ~slow)]
        alone = [has[of].sum(axis=0) for of in (slow, ~slow)]
        a, b = (grid[first, second] for grid in both)
        # Does the second still tell among those that have the first, and the first among those
        # that have the second?
        conditional = [
            more_frequent(a, alone[0][one], a + b, alone[0][one] + alone[1][one])
            for one in (first, second)
        ]
        everyone = np.full(len(a), len(slow))
        whole = more_frequent(a, np.full(len(a), slow.sum()), a + b, everyone)
        sure = np.maximum(*conditional) < LEVEL / len(a)
        rows = []
        for pair in np.flatnonzero(sure):
            one, other = singles[first[pair]], singles[second[pair]]
            with_both = has[:, first[pair]] & has[:, second[pair]]
            ratios = [
                float(self.weight[with_both & of].sum() / self.weight[of].sum())
                for of in (slow, ~slow)
            ]
            lift = ratios[0] / (ratios[0] * slow_share + ratios[1] * (1 - slow_share))
            better = lift >= _BETTER * max(one["lift"], other["lift"])
            if not better or one["key"] == other["key"]:
                continue
            rows.append(
                {
                    **one,
                    "key_2": other["key"],
                    "value_2": other["value"],
                    "slow": int(a[pair]),
                    "typical": int(b[pair]),
                    "slow_ratio": ratios[0],
                    "typical_ratio": ratios[1],
                    "lift": lift,
                    "p_adjusted": min(1.0, float(whole[pair]) * (tests + len(a))),
                    "also": [],
                }
            )
        return rows


def _best(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row["typical_ratio"] - row["slow_ratio"])[:MOST_ROWS]


def _together(has: Bools) -> Ints:
    counts = has.astype(np.int64)
    together: Ints = counts.T @ counts
    return together


DERIVED = Derived(
    "slow_traits",
    "one trait, or two together, that an endpoint's slowest requests have more often",
    ("requests", "tree", "spans", "span_events", "sample_spans"),
    compute,
    COLUMNS,
)

FAILED = Derived(
    "failure_traits",
    "one trait, or two together, that an endpoint's failed requests have more often",
    ("requests", "tree", "spans", "span_events", "sample_spans"),
    compute_failed,
    _FAILED_COLUMNS,
)
