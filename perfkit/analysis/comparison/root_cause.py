"""Which component made the one side differ from the other: latency, errors and structure together.

Requests of the other side vote for components (`votes`). What the one side's own halves say about
each other is the background: votes that a component gets although nothing changed. What remains
beyond it is scored by Ochiai's coefficient, as in spectrum-based fault localisation (Abreu et al.,
TAICPART '07): high for a component that gets much of all votes, and from many of the requests in
which it has a part at all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import polars as pl

from perfkit.analysis.comparison.calls import charged
from perfkit.analysis.comparison.contrast import Contrast
from perfkit.analysis.comparison.evidence import evidence
from perfkit.analysis.comparison.votes import SURE_Z, Calls, Votes, cast
from perfkit.analysis.vector.forest import Bools
from perfkit.analysis.vector.percentiles import Floats

_OF_ALL = ("requests", "slower_requests", "odd_requests", "excess_ns")
COLUMNS = {
    "component": "the service, or what sends no spans itself and is called by several",
    "score": "0 to 1: of latency and behaviour together; 0 is no more than the background",
    "latency_score": "of votes for time beyond normal",
    "behaviour_score": "of votes for failures and for missing, new or other calls",
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
    votes = cast(calls, normal, judged)
    ranking = _ranking(calls, votes, _background(calls, normal)).with_columns(
        pl.col(_OF_ALL) / shares[1]
    )
    return Causes(ranking, evidence(calls, votes, normal, judged, ranking), shares)


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


def _ranking(calls: Calls, votes: Votes, background: tuple[Floats, Floats, Floats]) -> pl.DataFrame:
    requests, latency, behaviour = background
    late, all_late = _score(votes.latency, votes.requests, latency, requests)
    odd, all_odd = _score(votes.behaviour, votes.requests, behaviour, requests)
    excess = np.bincount(calls.owner, votes.excess * calls.weight, len(calls.owners))
    return (
        pl.DataFrame(
            {
                "component": calls.owners,
                "score": 1 - (1 - late) * (1 - odd),
                "latency_score": late,
                "behaviour_score": odd,
                "requests": votes.requests,
                "slower_requests": votes.latency,
                "odd_requests": votes.behaviour,
                "excess_ns": excess,
                "explained_ratio": excess / max(float(excess.sum()), 1.0),
                "votes": 1 - (1 - all_late) * (1 - all_odd),
            },
            schema_overrides={"component": pl.String()},
        )
        .filter(pl.col("requests") > 0)
        .sort("score", "votes", "excess_ns", "component", descending=[True, True, True, False])
        .select(list(COLUMNS))
    )


def _background(calls: Calls, normal: Bools) -> tuple[Floats, Floats, Floats]:
    """Return requests, votes for latency and for behaviour when halves of the one side judge."""
    first = _first_half(calls, normal)
    one, other = normal & first, normal & ~first
    if not one.any() or not other.any():
        nothing = np.zeros(len(calls.owners))
        return nothing, nothing, nothing
    votes = [cast(calls, one, other), cast(calls, other, one)]
    return (
        votes[0].requests + votes[1].requests,
        votes[0].latency + votes[1].latency,
        votes[0].behaviour + votes[1].behaviour,
    )


def _first_half(calls: Calls, normal: Bools) -> Bools:
    """Return which spans belong to the first half, by run and time, of the normal requests."""
    entries = np.unique(calls.entry[normal])
    frame = calls.frame[entries].select("run", "start_ns")
    order = frame.with_columns(entry=pl.Series(entries)).sort("run", "start_ns", "entry")["entry"]
    half = np.zeros(len(calls.entry), dtype=np.bool_)
    half[order[: len(order) // 2].to_numpy()] = True
    result: Bools = half[calls.entry]
    return result


def _score(
    votes: Floats, requests: Floats, votes_before: Floats, before: Floats
) -> tuple[Floats, Floats]:
    """Return Ochiai's coefficient of the votes beyond the background, and of all votes.

    Beyond means surely so: by more than the 95 % bound of what the background lets expect, with
    the noise of these votes (as of counts) and of the background's own.
    """
    rate = np.divide(votes_before, before, out=np.zeros(len(votes)), where=before > 0)
    expected = requests * rate
    again = np.divide(requests, before, out=np.zeros(len(votes)), where=before > 0)
    beyond = np.maximum(votes - expected - SURE_Z * np.sqrt(expected * (1 + again)), 0.0)
    return _ochiai(beyond, requests), _ochiai(votes, requests)


def _ochiai(votes: Floats, requests: Floats) -> Floats:
    by = np.sqrt(votes.sum() * requests)
    coefficient: Floats = np.divide(votes, by, out=np.zeros(len(votes)), where=by > 0)
    return coefficient
