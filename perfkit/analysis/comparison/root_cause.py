"""Which component made the one side differ from the other: latency, errors and structure together.

Requests of the other side vote for components (`votes`). What the one side's own halves say about
each other is the background: votes that a component gets although nothing changed. What remains
beyond it is scored, and judged by how it differs between blocks of requests (`standing`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import polars as pl

from perfkit.analysis.comparison.call_kinds import Calls
from perfkit.analysis.comparison.calls import charged
from perfkit.analysis.comparison.contrast import BLOCKS, Contrast
from perfkit.analysis.comparison.ends import owners_of_ways
from perfkit.analysis.comparison.evidence import evidence
from perfkit.analysis.comparison.sides import Sides
from perfkit.analysis.comparison.standing import Standing
from perfkit.analysis.comparison.votes import Blocks, Tally, cast, judge
from perfkit.analysis.vector.forest import Bools, Ints
from perfkit.analysis.vector.intervals import distinct
from perfkit.analysis.vector.percentiles import Floats

_OF_ALL = ("requests", "slower_requests", "odd_requests", "excess_ns")
COLUMNS = {
    "component": "the service, or what sends no spans itself and is called by several",
    "score": "0 to 1: of latency and behaviour together; 0 is no more than the background",
    "latency_score": "of votes for time beyond normal",
    "behaviour_score": "of votes for failures and for missing, new or other calls",
    "verdict": "`cause`: surely more than chance, and first; `candidate`: as well, but one of "
    "several that cannot be told apart; `no evidence`",
    "requests": "requests of the other side in which it has a part",
    "slower_requests": "sum of their votes for latency, one a request at most",
    "odd_requests": "sum of their votes for behaviour, one a request at most",
    "excess_ns": "its time beyond normal, in all requests of the other side",
    "explained_ratio": "that by the time beyond normal of all components",
}


MOST_SPANS = 2_000_000
"""So many spans of a side are looked at; of more, those of a random share of its requests (our own
choice, for the memory: shares of requests are then known to a few thousandths)."""


class Causes(NamedTuple):
    """The ranking (`COLUMNS`), and what speaks for the first of it (`evidence.COLUMNS`)."""

    ranking: pl.DataFrame
    evidence: pl.DataFrame
    looked_at: tuple[float, float] = (1.0, 1.0)
    """Share of each side's requests that was looked at; figures of `ranking` stand for all."""


def rank(contrast: Contrast) -> Causes:
    """Return the components, the most likely cause first.

    Those of equal score (0: no more than the background) come in order of all their votes.
    """
    chosen, shares = thinned(contrast, MOST_SPANS)
    calls = Calls.of(charged(chosen))
    side = contrast.side_of_run[calls.frame["run"].to_numpy()]
    normal, judged = side == 0, side == 1
    of_span = np.where(normal, _blocks(calls, normal), _blocks(calls, judged))
    blocks = Blocks(of_span, BLOCKS)
    sides = Sides.of(calls, normal, judged)
    strength = judge(calls, sides)
    calls = replace(calls, owner=owners_of_ways(calls, strength.excess, judged))
    votes = cast(calls, judged, strength, blocks)
    sure = cast(calls, judged, judge(calls, sides, sure=True), blocks)
    standing = Standing(votes, _background(calls, sides, blocks), sure.total())
    ranking = _ranking(calls, strength.excess, votes.total(), standing)
    ranking = ranking.with_columns(pl.col(_OF_ALL) / shares[1])
    return Causes(ranking, evidence(calls, strength, normal, judged, ranking), shares)


def thinned(contrast: Contrast, most_spans: int) -> tuple[Contrast, tuple[float, float]]:
    """Return the contrast with no more than about so many spans a side, of whole requests, and the
    share of each side's requests that is left.
    """
    of_run = sum(
        np.bincount(part.run_of_row[part.run_of_row >= 0], minlength=contrast.runs)
        for part in contrast.parts
    )
    spans = np.bincount(contrast.side_of_run, of_run, 2)
    share = np.minimum(1.0, most_spans / np.maximum(spans, 1.0))
    if (share == 1.0).all():
        return contrast, (1.0, 1.0)
    of_part = share[contrast.side_of_run]
    parts = []
    for number, part in enumerate(contrast.parts):
        entry = part.tables.columns("tree", "entry_row")["entry_row"]
        chance = entry.hash(seed=number).to_numpy() / 2.0**64
        run = part.run_of_row
        # At -1, of neither side, whatever is looked up there is not used.
        parts.append(replace(part, run_of_row=np.where(chance < of_part[run], run, -1)))
    return replace(contrast, parts=tuple(parts)), (float(share[0]), float(share[1]))


def _ranking(calls: Calls, late: Floats, total: Tally, standing: Standing) -> pl.DataFrame:
    excess = np.bincount(calls.owner, late * calls.weight, len(calls.owners))
    scores = standing.scores
    return (
        pl.DataFrame(
            {
                "component": calls.owners,
                "score": scores.both,
                "latency_score": scores.latency,
                "behaviour_score": scores.behaviour,
                "verdict": standing.verdicts(),
                "requests": total.requests,
                "slower_requests": total.latency,
                "odd_requests": total.behaviour,
                "excess_ns": excess,
                "explained_ratio": excess / max(float(excess.sum()), 1.0),
                "votes": scores.all_votes,
            },
            schema_overrides={"component": pl.String(), "verdict": pl.String()},
        )
        .filter(pl.col("requests") > 0)
        .sort("score", "votes", "excess_ns", "component", descending=[True, True, True, False])
        .select(list(COLUMNS))
    )


def _background(calls: Calls, sides: Sides, blocks: Blocks) -> Tally:
    """Return what the votes are when halves of the normal side judge each other."""
    first = blocks.of_span < BLOCKS // 2
    one, other = sides.normal & first, sides.normal & ~first
    if not one.any() or not other.any():
        return Tally(*[np.zeros((len(calls.owners), BLOCKS))] * 5)
    votes = [
        cast(calls, judged, judge(calls, Sides.of(calls, normal, judged, sides.seen)), blocks)
        for normal, judged in ((one, other), (other, one))
    ]
    return votes[0] + votes[1]


def _blocks(calls: Calls, side: Bools) -> Ints:
    """Return which of `BLOCKS` each span's request is in: as many requests each, by run and time.

    What belongs to another side is in any.
    """
    entries = distinct(calls.entry[side])
    frame = calls.frame[entries].select("run", "start_ns")
    order = frame.with_columns(entry=pl.Series(entries)).sort("run", "start_ns", "entry")["entry"]
    block = np.zeros(len(calls.entry), dtype=np.int64)
    block[order.to_numpy()] = np.arange(len(order)) * BLOCKS // max(len(order), 1)
    result: Ints = block[calls.entry]
    return result
