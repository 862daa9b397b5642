"""Calls numbered by what they are compared by: like is compared with like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from perfkit.analysis.vector.forest import Bools, Ints
from perfkit.analysis.vector.percentiles import Floats, codes

OPERATION = ("service", "name", "callee")
_PLACE = ("service", "name", "above")


class Repeats(NamedTuple):
    """How often each parent makes each call: one entry a parent and operation."""

    parent: Ints
    number: Ints
    duration: Ints
    """Sum over the calls, in ns."""
    kind: Ints
    """Number of the operation and that of its parent."""
    kinds: int


@dataclass(frozen=True)
class Calls:
    """The spans of `calls.charged` as arrays, numbered by what they are compared by."""

    frame: pl.DataFrame
    operation: Ints
    """Number of service, name and callee."""
    place: Ints
    """Number of service, name and parent's name."""
    pattern: Ints
    """Number of the place and the set of what is right below."""
    patterns: int
    repeats: Repeats
    endpoint: Ints
    """Number of what the span's request was for."""
    owner: Ints
    owners: list[str]
    entry: Ints
    parent: Ints
    own: Floats
    weight: Floats
    failed: Bools

    @classmethod
    def of(cls, frame: pl.DataFrame) -> Calls:
        """Number the spans of both sides alike."""
        operation, _ = codes(frame, OPERATION)
        place, _ = codes(frame, _PLACE)
        owner, owners = codes(frame, ["owner"])
        parent = frame["parent"].to_numpy()
        called, _ = codes(frame, [*OPERATION, "target"])
        below = _sets_below(frame, parent, called)
        pattern, patterns = codes(
            pl.DataFrame({"place": place, "below": below}), ["place", "below"]
        )
        return cls(
            frame,
            operation,
            place,
            pattern,
            patterns.height,
            _repeats(frame, parent, operation),
            _endpoints(frame, parent, operation, called),
            owner,
            owners["owner"].to_list(),
            frame["entry"].to_numpy(),
            parent,
            frame["own_ns"].to_numpy().astype(np.float64),
            frame["weight"].to_numpy(),
            frame["failed"].to_numpy(),
        )


def _sets_below(frame: pl.DataFrame, parent: Ints, called: Ints) -> Ints:
    """Return a hash of the set of operations right below each span; 0 where nothing is.

    A call is told apart by what it reached, whatever its name. Whom it reached was for its caller
    to choose, though: of a call itself counts only that it arrived.
    """
    below = np.flatnonzero(parent >= 0)
    above = parent[below]
    arrived = frame["callee"].is_not_null().to_numpy()
    arrived &= np.bincount(above, minlength=len(parent)) == 1
    sets = (
        pl.DataFrame({"parent": above, "called": np.where(arrived[above], -1, called[below])})
        .unique()
        .with_columns(hash=pl.col("called").hash(seed=0))
        .group_by("parent")
        .agg(pl.col("hash").sum().reinterpret(signed=True))
    )
    result = np.zeros(len(parent), dtype=np.int64)
    result[sets["parent"].to_numpy()] = sets["hash"].to_numpy()
    return result


def _endpoints(frame: pl.DataFrame, parent: Ints, operation: Ints, called: Ints) -> Ints:
    """Return the number of what each span's request was for.

    That is the operation that it begins with; but for a router, an operation that calls one other
    at most, and not always the same, with the one that it reached.
    """
    below = np.flatnonzero((parent >= 0) & frame["callee"].is_not_null().to_numpy())
    calls = np.bincount(parent[below], minlength=len(parent))
    reached = np.full(len(parent), -1)
    reached[parent[below]] = called[below]
    entries = np.flatnonzero(parent < 0)
    described = pl.DataFrame(
        {"operation": operation[entries], "calls": calls[entries], "reached": reached[entries]}
    )
    router = (pl.col("calls").max() <= 1).over("operation")
    described = described.with_columns(reached=pl.when(router).then("reached"))
    endpoint = np.zeros(len(parent), dtype=np.int64)
    endpoint[entries], _ = codes(described, ["operation", "reached"])
    result: Ints = endpoint[frame["entry"].to_numpy()]
    return result


def _repeats(frame: pl.DataFrame, parent: Ints, operation: Ints) -> Repeats:
    called = pl.DataFrame(
        {"parent": parent, "operation": operation, "duration": frame["duration_ns"]}
    ).filter(parent >= 0)
    groups = called.group_by("parent", "operation").agg(
        number=pl.len().cast(pl.Int64), duration=pl.col("duration").sum()
    )
    above = groups["parent"].to_numpy()
    kind, kinds = codes(
        groups.select("operation", of=pl.Series(operation[above])), ["operation", "of"]
    )
    number, duration = groups["number"].to_numpy(), groups["duration"].to_numpy()
    return Repeats(above, number, duration, kind, kinds.height)
