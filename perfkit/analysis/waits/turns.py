"""Calls of an event loop's requests that wait for each other's turn: `turns`.

A lock of an event loop (`asyncio.Lock`, a semaphore, a pool of one) leaves neither a span nor a
stack: who waits for it is on no thread. But its callers show it. They reach the call and make it
not before another request's is done, and then at once:

    request 1  [call------]
    request 2  [..........[call------]
    request 3   [....................[call------]

Stacks tell of a loop that stood still meanwhile, for which the same may be seen; it is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from perfkit.analysis.session import Derived, Frames, Tables
from perfkit.analysis.spans.spilled import Spilled, batches, sizes_of
from perfkit.analysis.vector.forest import Ints
from perfkit.analysis.vector.order import stable_order
from perfkit.analysis.vector.overlaps import most_at_once
from perfkit.analysis.vector.percentiles import codes, sorted_codes

MIN_WAIT_NS = 10_000_000
"""What begins sooner did not wait for anybody (our own choice)."""
HANDOVER_NS = 3_000_000
"""Who had waited goes on so soon after the one before; a free loop takes microseconds (ours)."""

_SCOPE = ("service", "pid", "thread_id", "entry_endpoint", "entry_tool")
_KEY = (*_SCOPE, "component", "name")
_NUMBERS = ("entry_row", "start_ns", "end_ns", "from_ns", "entry_end_ns", "skew_ns")
_READ = {
    "tree": (
        *(*_KEY, "category", "detached", "parent_row", "entry_row"),
        *("start_ns", "end_ns", "skew_ns", "adjusted_count"),
    ),
    "span_waits": ("before_row",),
}


def compute(tables: Tables) -> pl.DataFrame:
    """Return the table `turns`, most waiting first."""
    found = tables.each_spilled("turns", _READ, _piece)
    every = pl.concat(kinds for kinds, _ in found)
    if not every["late"].any():
        return pl.DataFrame(schema=_SCHEMA)
    kind, kinds = sorted_codes(every, _KEY)
    scope, scopes = codes(kinds, _SCOPE)
    # Where none was late nobody waited.
    waits = np.zeros(scopes.height, dtype=np.bool_)
    waits[scope[kind[every["late"].to_numpy()]]] = True
    cuts = np.cumsum([pieces.height for pieces, _ in found])[:-1]
    spilled = [
        Spilled(calls, mine, pieces["spans"].to_numpy())
        for (pieces, calls), mine in zip(found, np.split(kind, cuts), strict=True)
    ]
    # Kinds are in the order of their scopes.
    first = np.append(np.searchsorted(scope, np.arange(scopes.height)), kinds.height)
    kept = np.where(waits[scope], np.arange(kinds.height), -1)
    sizes = sizes_of(spilled, np.where(kept < 0, -1, scope), scopes.height)
    # A call takes several times the memory of a span in other tables.
    most = None if tables.most_at_once is None else tables.most_at_once // 4
    parts = [
        _of_scopes(tables, spilled, kinds, scope, kept, (int(first[one]), int(first[last])))
        for one, last in batches(sizes, most)
    ]
    return pl.concat(parts).sort("wait_ns", *_KEY, descending=[True, *[False] * len(_KEY)])


def _piece(frames: Frames) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the kinds of calls of some whole traces, each with how many (`spans`) and whether any
    was `late`; beside it the numbers of the calls in that order.
    """
    tree = frames["tree"]
    called = pl.col("category").is_in(["client", "database"]) & ~pl.col("detached")
    known = pl.col("entry_row").is_not_null() & pl.col("thread_id").is_not_null()
    rows = np.flatnonzero(tree.select(called & known).to_series().to_numpy())
    calls = tree[rows]
    # A thread to which the loop gave work makes one call at a time in any case.
    own = calls["thread_id"] == tree["thread_id"].gather(calls["entry_row"])
    rows, calls = rows[own.fill_null(False).to_numpy()], calls.filter(own)
    before = frames["span_waits"]["before_row"][rows]
    calls = calls.with_columns(
        from_ns=pl.coalesce(
            tree["end_ns"].gather(before), tree["start_ns"].gather(calls["parent_row"])
        ),
        entry_end_ns=tree["end_ns"].gather(calls["entry_row"]),
    )
    code, kinds = sorted_codes(calls, _KEY)
    late = calls.select(_late().fill_null(False)).to_series().to_numpy()
    kinds = kinds.with_columns(
        spans=pl.Series(np.bincount(code, minlength=kinds.height)),
        late=pl.Series(np.bincount(code, late, kinds.height) > 0),
    )
    numbers = calls.select(*_NUMBERS, "adjusted_count")
    ordered: pl.DataFrame = numbers[stable_order(code)]
    return kinds, ordered


def _late() -> pl.Expr:
    return pl.col("start_ns") - pl.col("from_ns") >= MIN_WAIT_NS


def _of_scopes(
    tables: Tables,
    spilled: Sequence[Spilled],
    kinds: pl.DataFrame,
    scope: Ints,
    kept: Ints,
    between: tuple[int, int],
) -> pl.DataFrame:
    """Return the rows of `turns` of some kinds, all of whose calls are in memory."""
    read = []
    for piece, cut in zip(spilled, tables.cuts(), strict=False):
        code, calls = piece.read(kept, *between)
        code += between[0]
        read.append(
            calls.with_columns(
                pl.col("entry_row") + int(cut), kind=pl.Series(code), scope=pl.Series(scope[code])
            )
        )
    calls = pl.concat(read)
    read.clear()
    waited = calls.filter(_late())
    of = kinds[waited["kind"].to_numpy()].select("pid", "thread_id")
    return _table(calls, _handed_over(_free(waited.hstack(of), tables), calls), kinds)


def _free(waited: pl.DataFrame, tables: Tables) -> pl.DataFrame:
    """Leave out what waited, or called, while the loop stood still for half of that time."""
    blocked = tables.frame("loop_blocking").select(
        "pid", "start_ns", "duration_ns", thread_id="tid"
    )
    if waited.is_empty() or blocked.is_empty():
        return waited
    blocked = blocked.sort("start_ns").with_columns(
        before_ns=(pl.col("duration_ns").cum_sum() - pl.col("duration_ns")).over("pid", "thread_id")
    )
    sums = [
        waited.select("pid", "thread_id", at_ns=pl.col(time) - pl.col("skew_ns"))
        .with_row_index("place")
        .sort("at_ns")
        .join_asof(
            blocked,
            left_on="at_ns",
            right_on="start_ns",
            by=["pid", "thread_id"],
            check_sortedness=False,
        )
        .sort("place")
        .select(
            pl.col("before_ns")
            + pl.min_horizontal("duration_ns", pl.col("at_ns") - pl.col("start_ns"))
        )
        .to_series()
        .fill_null(0)
        for time in ("from_ns", "end_ns")
    ]
    stood = sums[1] - sums[0]
    return waited.filter(2 * stood < waited["end_ns"] - waited["from_ns"])


def _handed_over(waited: pl.DataFrame, calls: pl.DataFrame) -> pl.DataFrame:
    """Add whether each began right after another request on its loop had ended a call, or ended."""
    waited = waited.sort("start_ns")
    released = pl.concat(
        _soon(calls.select("scope", released_ns=time, by="entry_row"), waited["start_ns"])
        for time in ("end_ns", "entry_end_ns")
    )
    # Several may have ended at one moment.
    moments = released.group_by("scope", "released_ns").agg(
        first_by=pl.col("by").min(), last_by=pl.col("by").max()
    )
    another = pl.any_horizontal(pl.col("first_by", "last_by") != pl.col("entry_row"))
    return waited.join_asof(
        moments.sort("released_ns"),
        left_on="start_ns",
        right_on="released_ns",
        by="scope",
        check_sortedness=False,
    ).with_columns(
        handed=(
            another
            & (pl.col("released_ns") > pl.col("from_ns"))
            & (pl.col("start_ns") - pl.col("released_ns") <= HANDOVER_NS)
        ).fill_null(False)
    )


def _soon(released: pl.DataFrame, starts: pl.Series) -> pl.DataFrame:
    """Return the releases after which anything that had waited begins soon: the others hand nothing
    over, and there are many.
    """
    if starts.is_empty():
        return released.head(0)
    start, time = starts.to_numpy(), released["released_ns"].to_numpy()
    next_one = np.searchsorted(start, time)
    follows = next_one < len(start)
    gap = start[np.minimum(next_one, len(start) - 1)] - time
    return released.filter(pl.Series(follows & (gap <= HANDOVER_NS)))


def _table(calls: pl.DataFrame, waited: pl.DataFrame, kinds: pl.DataFrame) -> pl.DataFrame:
    of_waited = waited["kind"].unique()
    calls = calls.select("kind", "start_ns", "end_ns", "entry_row").filter(
        pl.col("kind").is_in(of_waited.implode())
    )
    ordered = calls.sort("kind", "start_ns")
    kind = ordered["kind"].to_numpy()
    start, end = ordered["start_ns"].to_numpy(), ordered["end_ns"].to_numpy()
    at_once = most_at_once(kind, start, end, kinds.height)
    wait = pl.col("start_ns") - pl.col("from_ns")
    of_waiting = waited.group_by("kind").agg(
        waits=pl.len().cast(pl.Int64),
        handed_over=pl.col("handed").sum().cast(pl.Int64),
        wait_ns=(wait * pl.col("adjusted_count")).filter("handed").sum().round().cast(pl.Int64),
        max_wait_ns=wait.filter("handed").max(),
    )
    found = (
        ordered.group_by("kind", maintain_order=True)
        .agg(
            calls=pl.len().cast(pl.Int64),
            requests=pl.col("entry_row").n_unique().cast(pl.Int64),
            mean_call_ns=(pl.col("end_ns") - pl.col("start_ns")).mean().round().cast(pl.Int64),
        )
        .join(of_waiting, on="kind")
    )
    of = found["kind"].to_numpy()
    return (
        found.hstack(kinds[of].select(_KEY))
        .with_columns(most_at_once=pl.Series(at_once[of]))
        .select(pl.col(name).cast(dtype) for name, dtype in _SCHEMA.items())
    )


_SCHEMA: dict[str, pl.DataType] = {
    "service": pl.String(),
    **dict.fromkeys(("pid", "thread_id"), pl.Int64()),
    **dict.fromkeys(("entry_endpoint", "entry_tool", "component", "name"), pl.String()),
    **dict.fromkeys(("calls", "requests", "most_at_once", "mean_call_ns"), pl.Int64()),
    **dict.fromkeys(("waits", "handed_over", "wait_ns", "max_wait_ns"), pl.Int64()),
}

COLUMNS = {
    "service": "service.name",
    "pid": "process",
    "thread_id": "thread of the event loop",
    "entry_endpoint": "endpoint of the requests",
    "entry_tool": "tool of the requests",
    "component": "whom they call",
    "name": "name of the call's span",
    "calls": "how many calls, by requests on one thread",
    "requests": "in how many requests",
    "most_at_once": "most of these calls at once",
    "mean_call_ns": "mean duration of the calls",
    "waits": "calls before which their request had done nothing for "
    f"{MIN_WAIT_NS // 1_000_000} ms or more, in most of which the loop did not stand still",
    "handed_over": "those that began right after another such request's call, or all of it, had "
    "ended",
    "wait_ns": "how long those that were handed over had waited, together",
    "max_wait_ns": "the longest of that",
}

DERIVED = Derived(
    "turns",
    "one kind of call of requests on one event loop that some waited to make",
    ("tree", "span_waits", "loop_blocking"),
    compute,
    COLUMNS,
)
