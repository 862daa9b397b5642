"""From what is wrong now to what each target is told."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perfkit.alert.event import Alert, Event
from perfkit.alert.http import Undelivered
from perfkit.alert.state import State
from perfkit.alert.targets import Target


@dataclass(frozen=True)
class Delivery:
    """What came of telling one target."""

    target: str
    new: int
    over: int
    going_on: int
    problem: str | None = None
    waiting: int = 0
    """Events that it has not taken, and that the next run sends again."""
    dropped: int = 0
    """Events that were too many to wait."""


def deliver(
    alerts: Sequence[Alert], targets: Sequence[Target], source: str, state_path: Path
) -> list[Delivery]:
    """Tell every target what is new and what is over. A target that fails stops no other.

    What is to be said is in the state before it is said, so nothing is lost when this process is.
    Raises InputError for a damaged state.
    """
    with State.open(state_path) as state:
        now_ns = time.time_ns()
        counts = {
            target.name: state.channel(target.name, source).update(alerts, now_ns)
            for target in targets
        }
        state.save()
        return [_tell(target, source, state, counts[target.name], now_ns) for target in targets]


def _tell(
    target: Target, source: str, state: State, counts: tuple[int, int], now_ns: int
) -> Delivery:
    channel = state.channel(target.name, source)
    events = list(channel.waiting)
    if target.repeats:
        waiting = {event.alert.fingerprint for event in events}
        events += [Event(one) for name, one in channel.firing.items() if name not in waiting]
    new, over = counts
    going_on, dropped = len(channel.firing) - new, channel.dropped
    problem = None
    if events:
        try:
            target.send(events, now_ns)
        except Undelivered as error:
            problem = error.message
        else:
            channel.waiting, channel.dropped = [], 0
            state.save()
    return Delivery(target.name, new, over, going_on, problem, len(channel.waiting), dropped)
