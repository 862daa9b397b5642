"""Keeps every interesting trace and a share of the ordinary ones, so that counts stay unbiased.

A trace is interesting when a span in it failed or a request in it was slow. The others are put in
strata by the endpoint that began them; of the n traces of a stratum, k are drawn at random and each
stands for n / k (stratified sampling without replacement, Horvitz and Thompson 1952: sums weighted
so are unbiased, and the number of traces of a stratum is exact). Drawing depends on nothing but a
hash of the trace id, never on what is estimated.

Spans arrive one by one, so a trace is decided some time after its last span. What comes later still
follows the decision, except that a failure or a slow request is always kept, with its own weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

TABLES = ("spans", "span_events", "span_links")

QUIET_NS = 10 * 10**9
"""A trace without news for so long is complete: twice what exporters wait. Our own number."""
ROOTLESS_NS = 300 * 10**9
"""The same for a trace whose request has not yet arrived: requests arrive after their parts."""
MIN_PER_ENDPOINT = 10
"""Ordinary traces that are kept of each endpoint at a time, however rare. Our own number."""
MAX_HELD_SPANS = 400_000
MAX_DECIDED_TRACES = 1_000_000

_TRACE = ["trace_hi", "trace_lo"]


@dataclass(frozen=True)
class TailPolicy:
    """Which traces are kept: `ratio` of the ordinary ones, and requests from `slow_ns` on."""

    ratio: float
    slow_ns: int


class TailSampler:
    """Takes rows of `TABLES` as they come, holds them, and gives back those that are kept.

    Every frame has the column `segment`: the number of the journal segment that it is from.
    """

    def __init__(self, policy: TailPolicy, *, max_held_spans: int = MAX_HELD_SPANS) -> None:
        self._policy = policy
        self._max_held_spans = max_held_spans
        self._held: dict[str, list[pl.DataFrame]] = {name: [] for name in TABLES}
        self._decided = pl.DataFrame(
            schema={"trace_hi": pl.Int64, "trace_lo": pl.Int64, "weight": pl.Float64}
        )
        self.dropped_spans = 0
        self.early_traces = 0
        """Traces that were decided before they were complete, for want of memory."""

    def renewed(self) -> TailSampler:
        """Return one that holds nothing and knows what was decided."""
        new = TailSampler(self._policy, max_held_spans=self._max_held_spans)
        new._decided, new.dropped_spans = self._decided, self.dropped_spans
        new.early_traces = self.early_traces
        return new

    @property
    def segments(self) -> set[int]:
        """Numbers of the segments of which rows are held."""
        return {
            number
            for frames in self._held.values()
            for frame in frames
            for number in frame["segment"].unique()
        }

    def add(self, table: str, rows: pl.DataFrame) -> None:
        """Take rows."""
        if rows.height:
            self._held[table].append(rows)

    def decide(self, now_ns: int, *, final: bool = False) -> dict[str, pl.DataFrame]:
        """Return the kept rows of all traces that are complete; with `final`, of all.

        To be called when the spans are added together with their events and links.
        """
        held = {name: pl.concat(frames) for name, frames in self._held.items() if frames}
        if "spans" not in held:
            return {}
        spans = self._described(held["spans"])
        traces = _traces(spans).join(self._decided, on=_TRACE, how="left")
        known = pl.col("weight").is_not_null()
        ready = traces.filter(known | final | _complete(spans, now_ns))
        if not final and traces.height - ready.height:
            waiting = traces.join(ready, on=_TRACE, how="anti")
            if waiting["spans"].sum() >= self._max_held_spans:
                self.early_traces += waiting.height
                ready = traces
        decided = self._weigh(ready)
        kept: dict[str, pl.DataFrame] = {}
        for name, rows in held.items():
            self._held[name] = []
            self.add(name, rows.join(ready, on=_TRACE, how="anti"))
            chosen = rows.join(
                decided.select(*_TRACE, "weight"), on=_TRACE, how="inner", maintain_order="left"
            )
            kept[name] = chosen.filter(pl.col("weight") > 0)
        if "spans" in kept:
            self.dropped_spans += int(ready["spans"].sum()) - kept["spans"].height
            kept["spans"] = kept["spans"].with_columns(
                adjusted_count=pl.col("adjusted_count") * pl.col("weight")
            )
        self._remember(decided)
        return {name: rows.drop("weight") for name, rows in kept.items() if rows.height}

    def _described(self, spans: pl.DataFrame) -> pl.DataFrame:
        request = pl.col("kind").is_in(["server", "consumer"]) | pl.col("parent_id").is_null()
        slow = request & (pl.col("duration_ns") >= self._policy.slow_ns)
        return spans.select(
            *_TRACE,
            "start_ns",
            end_ns=pl.col("start_ns") + pl.col("duration_ns").fill_null(0),
            request=request,
            keep=(pl.col("status") == "error") | slow.fill_null(False),
            stratum=pl.struct("service", pl.coalesce("endpoint", "name")).hash(seed=0),
        )

    def _weigh(self, traces: pl.DataFrame) -> pl.DataFrame:
        """Return trace, weight (0 when dropped), and whether that was decided now."""
        ordinary = ~pl.col("keep") & pl.col("weight").is_null()
        rank = pl.struct(_TRACE).hash(seed=1).rank("ordinal").over("stratum", ordinary)
        size = pl.len().over("stratum", ordinary)
        drawn = (size * self._policy.ratio).ceil().cast(pl.Int64)
        drawn = pl.min_horizontal(pl.max_horizontal(drawn, pl.lit(MIN_PER_ENDPOINT)), size)
        share = pl.when(rank <= drawn).then(size / drawn).otherwise(0.0)
        return traces.select(
            *_TRACE,
            new=pl.col("weight").is_null(),
            weight=pl.when("keep").then(1.0).otherwise(pl.coalesce("weight", share)),
        )

    def _remember(self, decided: pl.DataFrame) -> None:
        new = decided.filter("new").drop("new")
        self._decided = pl.concat([self._decided, new]).tail(MAX_DECIDED_TRACES)


def _traces(spans: pl.DataFrame) -> pl.DataFrame:
    """Return one row a trace; its stratum is that of its first request, or else first span."""
    first = pl.col("start_ns").arg_min()
    requests = spans.filter("request").group_by(_TRACE).agg(pl.col("stratum").get(first))
    every = spans.group_by(_TRACE, maintain_order=True).agg(
        spans=pl.len().cast(pl.Int64),
        end_ns=pl.col("end_ns").max(),
        keep=pl.col("keep").any(),
        rootless=~pl.col("request").any(),
        first=pl.col("stratum").get(first),
    )
    joined = every.join(requests, on=_TRACE, how="left", maintain_order="left")
    return joined.with_columns(stratum=pl.coalesce("stratum", "first")).drop("first")


def _complete(spans: pl.DataFrame, now_ns: int) -> pl.Expr:
    # By the spans' own clock, because they may have waited long to be compacted; but some sender's
    # clock may be in the future.
    newest_ns = spans.select(pl.col("end_ns").clip(upper_bound=now_ns).max()).item()
    quiet = pl.when("rootless").then(ROOTLESS_NS).otherwise(QUIET_NS)
    complete: pl.Expr = pl.col("end_ns") <= newest_ns - quiet
    return complete
