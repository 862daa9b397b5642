"""What slow and failed requests have in common, an endpoint a sentence. Nothing is escaped."""

from __future__ import annotations

from typing import Any

import polars as pl

from perfkit import units
from perfkit.analysis.comparison.words import short, trait

_NAMES = ("k8s.pod.name", "container.name", "host.name", "instance", "pid")
"""Keys by which a replica is known: where several name the same one, a reader may need another."""

_OTHER_NAMES = 2
"""So many other names of a replica are told."""

Row = dict[str, Any]


def sentences(slow: pl.DataFrame, failed: pl.DataFrame, most: int) -> list[str]:
    """Return what `slow_traits` and `failure_traits` say of `most` endpoints each: failures first.

    Of each endpoint the most telling trait is named that may be a reason, and of slow requests the
    most telling one of where their time was.
    """
    said = [_of_failed(rows) for rows in _by_endpoint(failed.filter(kind="was"), most)]
    return said + [_of_slow(rows) for rows in _by_endpoint(slow, most)]


def _by_endpoint(traits: pl.DataFrame, most: int) -> list[list[Row]]:
    groups = traits.group_by("service", "endpoint", maintain_order=True)
    return [rows.to_dicts() for _, rows in groups][:most]


def _of_failed(rows: list[Row]) -> str:
    row = rows[0]
    return (
        f"{_endpoint(row)}: {_share(row['failed_ratio'])} of the failed requests have "
        f"{_named(row)}, {_share(row['ok_ratio'])} of the others."
    )


def _of_slow(rows: list[Row]) -> str:
    best = [next((row for row in rows if row["kind"] == kind), None) for kind in ("was", "did")]
    parts = [
        f"{_share(row['slow_ratio'])} of the slow requests have {_named(row)}, "
        f"{_share(row['typical_ratio'])} of typical ones"
        for row in best
        if row is not None
    ]
    return f"{_endpoint(rows[0])}: {'; '.join(parts)}."


def _endpoint(row: Row) -> str:
    return short(row["endpoint"], 50)


def _named(row: Row) -> str:
    """Return a trait, and how else the replica is known that it names."""
    others = [one for one in row["also"] if one.partition("=")[0] in _NAMES]
    if row["key"] not in _NAMES or row["key_2"] or not others:
        return trait(row)
    return f"{trait(row)} ({', '.join(short(one, 50) for one in others[:_OTHER_NAMES])})"


def _share(ratio: float) -> str:
    if ratio == 0:
        return "none"
    return "all" if ratio == 1 else units.percent(ratio)
