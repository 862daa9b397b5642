"""What was said to whom: so that nothing is said twice, and nothing that was not said is lost.

One JSON file. Events wait in it, by target, until the target has taken them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from perfkit.alert.event import Alert, Event
from perfkit.errors import InputError
from perfkit.manifest import atomic_write

_MOST_WAITING = 1000
"""Events that wait for a target which is down; beyond, the oldest are dropped, and it is said."""


@dataclass
class Channel:
    """What one target knows of one source, and what waits for it."""

    firing: dict[str, Alert] = field(default_factory=dict)
    waiting: list[Event] = field(default_factory=list)
    dropped: int = 0

    def update(self, alerts: Iterable[Alert], now_ns: int) -> tuple[int, int]:
        """Take what is wrong now; queue what is new and what is over. Returns their numbers."""
        now = {alert.fingerprint: alert for alert in alerts}
        new = [alert for name, alert in now.items() if name not in self.firing]
        over = [alert for name, alert in self.firing.items() if name not in now]
        self.waiting += [Event(alert) for alert in new]
        self.waiting += [Event(alert, now_ns) for alert in over]
        self.dropped = max(0, len(self.waiting) - _MOST_WAITING)
        self.waiting = self.waiting[self.dropped :]
        # An alert that goes on keeps when it was first seen to begin.
        self.firing = {name: self.firing.get(name, alert) for name, alert in now.items()}
        return len(new), len(over)


class State:
    """The file, open and locked: of two jobs the second waits for the first."""

    def __init__(self, path: Path, channels: dict[str, Channel]) -> None:
        self._path = path
        self._channels = channels

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path) -> Iterator[State]:
        """Read and lock the file; it is made when it is not there. Raises InputError, OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield cls(path, _load(path))
        finally:
            os.close(lock)

    def channel(self, target: str, source: str) -> Channel:
        """Return what a target knows of a source of alerts."""
        return self._channels.setdefault(f"{target} {source}", Channel())

    def save(self) -> None:
        """Write the file, whole or not at all."""
        content = {name: asdict(channel) for name, channel in sorted(self._channels.items())}
        with atomic_write(self._path) as file:
            file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def _load(path: Path) -> dict[str, Channel]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise _damaged(path) from error
    try:
        return {name: _channel(one) for name, one in raw.items()}
    except (TypeError, KeyError, AttributeError) as error:
        raise _damaged(path) from error


def _channel(raw: dict[str, Any]) -> Channel:
    return Channel(
        firing={name: Alert(**one) for name, one in raw["firing"].items()},
        waiting=[Event(Alert(**one["alert"]), one["ends_ns"]) for one in raw["waiting"]],
        dropped=int(raw["dropped"]),
    )


def _damaged(path: Path) -> InputError:
    return InputError(
        "not a state of alerts",
        where=str(path),
        hint="give another file with --state, or move this one away: what is wrong is said anew",
    )
