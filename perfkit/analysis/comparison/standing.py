"""How components stand by their votes: their scores, and which of them may be called the cause.

Votes beyond the background are scored by Ochiai's coefficient, as in spectrum-based fault
localisation (Abreu et al., TAICPART '07): high for a component that gets much of all votes, and
from many of the requests in which it has a part at all.

A high score alone is no evidence: whatever is first has one. A component may be named when it still
has votes where the bounds are those of all tests together, and when its votes are more frequent
than the background's by Welch's test over blocks of requests, for requests of one time share its
luck. It is the cause when it has the highest score and every other one that may be named is surely
behind, by a jackknife over the blocks; otherwise it is one candidate of several.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np

from perfkit.analysis.comparison.votes import SURE_Z, Tally
from perfkit.analysis.statistics.significance import LEVEL, compare_runs
from perfkit.analysis.vector.forest import Bools
from perfkit.analysis.vector.percentiles import Floats

CAUSE, CANDIDATE, NO_EVIDENCE = "cause", "candidate", "no evidence"


class Scores(NamedTuple):
    """Scores by owner, 0 to 1."""

    both: Floats
    latency: Floats
    behaviour: Floats
    all_votes: Floats
    """As `both`, of all votes: the background counts too."""


class Standing:
    """The standing of all owners by the votes of the judged side and by those of the background."""

    def __init__(self, votes: Tally, background: Tally, sure: Tally) -> None:
        self._votes, self._background, self._sure = votes, background, sure

    @cached_property
    def scores(self) -> Scores:
        """Return the scores of all blocks together."""
        return scored(self._votes.total(), self._background.total())

    def verdicts(self) -> list[str]:
        """Return `CAUSE`, `CANDIDATE` or `NO_EVIDENCE` for each owner."""
        score = self.scores.both
        able = (score > 0) & (
            self._differs(self._votes.latency, self._background.latency, self._sure.latency)
            | self._differs(self._votes.behaviour, self._background.behaviour, self._sure.behaviour)
        )
        if not able.any():
            return [NO_EVIDENCE] * len(score)
        first = int(np.argmax(score))
        lead, error = self._lead(first)
        near = able & (lead <= SURE_Z * error)
        if not near.any():
            near[np.argmax(np.where(able, score, -1.0))] = True
        word = CAUSE if near[first] and near.sum() == 1 else CANDIDATE
        return [word if one else NO_EVIDENCE for one in near]

    def _differs(self, votes: Floats, usual: Floats, sure: Floats) -> Bools:
        """Return which owners surely have more votes of one kind than usual."""
        result = sure > 0
        for owner in np.flatnonzero(result):
            change = compare_runs(
                _rates(usual[owner], self._background.requests[owner]),
                _rates(votes[owner], self._votes.requests[owner]),
                relative=False,
            )
            result[owner] = change.change > 0 and change.p < LEVEL
        return result

    def _lead(self, first: int) -> tuple[Floats, Floats]:
        """Return how far each is behind one, and the standard error of that.

        Jackknife over the blocks of both sides (Efron and Stein 1981).
        """
        votes, background = self._votes.total(), self._background.total()
        variance = np.zeros(len(votes.requests))
        blocks = self._votes.requests.shape[1]
        for side in (0, 1):
            leads = []
            for block in range(blocks):
                both = (
                    (self._votes.total(block), background)
                    if side
                    else (votes, self._background.total(block))
                )
                score = scored(*both).both
                leads.append(score[first] - score)
            variance += (blocks - 1) * np.var(leads, axis=0)
        score = self.scores.both
        error: Floats = np.sqrt(variance)
        return score[first] - score, error


def scored(votes: Tally, background: Tally) -> Scores:
    """Return the scores of owners; the arrays of both tallies are by owner."""
    requests = votes.requests
    again = np.divide(
        requests, background.requests, out=np.zeros(len(requests)), where=background.requests > 0
    )
    late = _beyond(votes.latency, again, background.latency, background.latency_squares)
    odd = _beyond(votes.behaviour, again, background.behaviour, background.behaviour_squares)
    total = float(late.sum() + odd.sum())
    by = [_ochiai(of, total, requests) for of in (late, odd)]
    cast = votes.latency + votes.behaviour
    both = np.minimum(by[0] + by[1], 1.0)
    return Scores(both, by[0], by[1], _ochiai(cast, float(cast.sum()), requests))


def _beyond(votes: Floats, again: Floats, usual: Floats, squares: Floats) -> Floats:
    """Return the votes beyond those that the background lets expect.

    Beyond means surely so: by more than the 95 % bound, with the noise of these votes and of the
    background's own (seen in `again` times as few requests). Votes are parts of a request: many
    small ones vary less than few whole ones, so the variance is the sum of their squares.
    """
    noise = np.sqrt(again * squares * (1 + again))
    beyond: Floats = np.maximum(votes - again * usual - SURE_Z * noise, 0.0)
    return beyond


def _ochiai(votes: Floats, total: float, requests: Floats) -> Floats:
    by = np.sqrt(total * requests)
    coefficient: Floats = np.divide(votes, by, out=np.zeros(len(votes)), where=by > 0)
    return coefficient


def _rates(votes: Floats, requests: Floats) -> Floats:
    rates: Floats = np.divide(votes, requests, out=np.full(len(votes), np.nan), where=requests > 0)
    return rates
