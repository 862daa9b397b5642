"""Where every span stands among the others: the columns of `tree` that say what belongs to what.

Of the columns of `spans` only those are read that this takes, since most time goes into memory.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from perfkit import semconv
from perfkit.analysis.filters import Filters
from perfkit.analysis.session import Derived, Tables
from perfkit.analysis.spans import double_calls, duplicates, parents, skew
from perfkit.analysis.spans.recorded import Recorded
from perfkit.analysis.vector.depth_first import depth_first, marked_above
from perfkit.analysis.vector.forest import Bools, Ints, nearest_marked
from perfkit.analysis.vector.plausible import FIRST_NS, LAST_NS
from perfkit.analysis.vector.rows import rows_or_null

COLUMNS = {
    "row": "number of the span here; a span's subtree is the `subtree` rows that begin with it",
    "parent_row": "row of the parent; null at roots",
    "request_row": "row of the nearest request at or above it; null when there is none",
    "entry_row": "row of the entry that it belongs to: the request with no request above it",
    "depth": "number of spans above it in its entry",
    "subtree": "number of spans in its subtree, itself included",
    "start_ns": "start, corrected for clock skew",
    "end_ns": "end; for an open span the latest time seen in its trace, or the one until which it "
    "is known to have been open",
    "duration_ns": "end minus start, never negative",
    "open": "had not ended when the capture did",
    "negative": "ended before it started, as recorded; counted as of no length",
    "cut": "its recorded parent is missing or impossible, so it stands as a root",
    "detached": "its parent does not wait for it: it is not part of the parent's time",
    "duplicate": "another instrumentation's report of a request or call that is here already",
    "calls_server": "a client span that waits for a server's span right below it",
    "skew_ns": "by how much the span was moved to correct clock skew",
}

SOURCE = "source"
"""Beside those columns: which of the captured spans it is, in the order of `Recorded`."""

_WAITS_FOR_WORK = (
    r"(?i)^(redis[ .:-]|valkey[ .:-])?"
    r"(B[LR]POP|BRPOPLPUSH|BLMOVE|BLMPOP|BZPOPM(IN|AX)|BZMPOP|XREAD(GROUP)?)$"
    r"|^(SQS|PubSub|ServiceBus)\W.*receive|\bReceiveMessage$"
)
"""Names of calls by which a worker waits for its next job: Redis' commands that block, and queues
of which a receiver asks with a wait (SQS: long polling)."""

_READ = ("trace_hi", "trace_lo", "span_id", "parent_id", "start_ns", "duration_ns", "kind")


def compute(tables: Tables) -> pl.DataFrame:
    """Find the place of each span whose entry passes the filters."""
    if tables.filters != Filters():
        return tables.frame("tree").select(*COLUMNS)
    spans = Recorded(tables.snapshot("spans"))
    links = tables["span_links"].collect()
    return build(spans, links, roots_stand_in=tables.roots_stand_in)


def build(spans: Recorded, links: pl.DataFrame, *, roots_stand_in: bool = True) -> pl.DataFrame:
    """Find the place of all spans.

    With `roots_stand_in` roots of any kind are requests where there are no others.
    """
    spans.read(*_READ)
    ids = parents.drop_repeats(spans)
    parent, cut, missing = parents.link(spans, ids)
    start, end, negative = _times(spans)
    reports = duplicates.find(spans, parent, start, end)
    parent = duplicates.drivers(spans, reports.parent, start, end)
    parent, double = double_calls.find(spans, parent, start, end)
    detached = parents.detached(spans, links, parent)
    moved = skew.shifts(spans, parent, start, end - start, detached)
    start, end = (np.clip(time + moved, FIRST_NS, LAST_NS) for time in (start, end))
    requests = _requests(spans, parent, missing, reports.duplicate)
    if roots_stand_in and not requests.any():
        requests = (parent < 0) & ~reports.duplicate
    request = nearest_marked(parent, requests)
    entries = requests & ((request[parent] < 0) | (parent < 0) | detached)
    calls_server = _calls_server(spans, parent, detached)

    order, sizes = depth_first(parent, start)
    place = _places(order)
    parent, request = place[parent[order]], place[request[order]]
    entry = nearest_marked(parent, entries[order])
    depth = marked_above(np.ones(len(order), dtype=np.bool_), sizes) - 1
    # Of what belongs to no entry all spans above it count.
    depth -= np.where(entry >= 0, depth[entry], 0)
    start, end = start[order], end[order]
    source = order if spans.kept is None else spans.kept[order]
    return pl.DataFrame(
        {
            "row": np.arange(len(order)),
            "parent_row": rows_or_null(parent),
            "request_row": rows_or_null(request),
            "entry_row": rows_or_null(entry),
            "depth": depth,
            "subtree": sizes,
            "start_ns": start,
            "end_ns": end,
            "duration_ns": end - start,
            "open": spans["duration_ns"].is_null().to_numpy()[order],
            "negative": negative[order],
            "cut": (cut | reports.cut)[order],
            "detached": detached[order],
            "duplicate": (reports.duplicate | double)[order],
            "calls_server": calls_server[order],
            "skew_ns": moved[order],
            SOURCE: source,
        }
    )


def _times(spans: Recorded) -> tuple[Ints, Ints, Bools]:
    """Return start, end, and where the recorded length was negative. Open spans get an end."""
    start = spans["start_ns"].clip(0, LAST_NS).to_numpy()
    recorded = spans["duration_ns"].fill_null(0).clip(-1, LAST_NS).to_numpy()
    end = np.minimum(start + np.maximum(recorded, 0), LAST_NS)
    still_open = spans["duration_ns"].is_null()
    if still_open.any():
        trace = ["trace_hi", "trace_lo"]
        latest = (
            spans.select(*trace)
            .with_columns(end=pl.Series(end), open=still_open)
            .select(pl.when("open").then(pl.col("end").max().over(trace)).otherwise("end"))
        )
        end = np.maximum(latest["end"].to_numpy(), _seen_open(spans, start))
    return start, end, recorded < 0


def _seen_open(spans: Recorded, start: Ints) -> Ints:
    """Return until when each open span is known to have been open; 0 where it is not said."""
    said = spans.attributes_of_open()
    text = said["attributes"].str.json_path_match(f"$['{semconv.OPEN_NS}']")
    length = text.cast(pl.Int64, strict=False)
    until = np.zeros(spans.height, dtype=np.int64)
    rows = said["row"].to_numpy()
    until[rows] = start[rows] + length.fill_null(0).clip(0, LAST_NS).to_numpy()
    return np.minimum(until, LAST_NS)


def _requests(spans: Recorded, parent: Ints, missing: Bools, duplicate: Bools) -> Bools:
    """Return which spans are requests: server and consumer spans, and roots.

    A server span right inside its own service, with no call in between, is a layer of the request
    around it and not another one: so MCP's `tools/call` within `POST /mcp`.

    A span inside a service whose parent never arrived (often because the capture began or ended in
    the middle of its request) is part of a request that we do not know, not a request. Nor is a
    root by which a worker waits for its next job: it has nothing to do.
    """
    root = (parent < 0) & ~duplicate
    calling = np.flatnonzero(root & spans.is_kind("client"))
    if calling.size:
        waits = spans.pop("name").gather(calling).str.contains(_WAITS_FOR_WORK).fill_null(False)
        root[calling[waits.to_numpy()]] = False
    if missing.any():
        root &= ~missing | ~(spans["kind"] != "unspecified").fill_null(False).to_numpy()
    requests: Bools = (_serving(spans, parent) & ~duplicate) | root
    return requests


def _serving(spans: Recorded, parent: Ints) -> Bools:
    """Return the server and consumer spans that are no layer of a request around them."""
    result: Bools = spans.is_kind("server") | spans.is_kind("consumer")
    child = np.flatnonzero(result & (parent >= 0))
    above = parent[child]
    called = spans.is_kind("client") | spans.is_kind("producer")
    layer = ~called[above] & (spans.host[child] == spans.host[above])
    if layer.any():
        child, above = child[layer], above[layer]
        pid = spans["pid"]
        result[child] = ~pid.gather(child).eq_missing(pid.gather(above)).to_numpy()
    return result


def _calls_server(spans: Recorded, parent: Ints, detached: Bools) -> Bools:
    """Return which spans are client spans that wait for a server span right below them."""
    result = np.zeros(len(parent), dtype=np.bool_)
    served = np.flatnonzero(spans.is_kind("server") & (parent >= 0) & ~detached)
    result[parent[served]] = True
    result &= spans.is_kind("client")
    return result


def _places(order: Ints) -> Ints:
    """Return where each node is in an order; no node, -1, is nowhere."""
    place = np.empty(len(order) + 1, dtype=np.int64)
    place[order] = np.arange(len(order))
    place[-1] = -1
    return place


BACKBONE = Derived("tree_backbone", "one span", ("spans", "span_links"), compute, COLUMNS)
