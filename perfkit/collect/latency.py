"""How long the requests took that came so far: a log-linear histogram, as HdrHistogram has it.

Good enough to watch by: the report computes exact percentiles. A bucket is 1/32 of a power of two
wide, so a percentile is off by less than 1.6 %. http://hdrhistogram.org/
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable

_SUB_BITS = 5
_SLOT_S = 5.0
_SLOTS = 12
WINDOW_S = _SLOT_S * _SLOTS
"""What "now" means: our own number."""


class Latency:
    """Durations in ns; `add` may be called from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total: Counter[int] = Counter()
        self._recent: deque[tuple[int, Counter[int]]] = deque(maxlen=_SLOTS)

    def add(self, durations_ns: Iterable[int]) -> None:
        """Take durations of requests that ended about now."""
        counts = Counter(map(_bucket, durations_ns))
        if not counts:
            return
        slot = int(time.monotonic() / _SLOT_S)
        with self._lock:
            self._total.update(counts)
            if not self._recent or self._recent[-1][0] != slot:
                self._recent.append((slot, Counter()))
            self._recent[-1][1].update(counts)

    def quantile(self, share: float) -> int | None:
        """Return a percentile of all so far; null before the first."""
        with self._lock:
            return _quantile(self._total, share)

    def recent_quantile(self, share: float, at_least: int) -> int | None:
        """Return a percentile of the last `WINDOW_S`; null with fewer than `at_least` requests."""
        oldest = int(time.monotonic() / _SLOT_S) - _SLOTS
        with self._lock:
            counts: Counter[int] = Counter()
            for slot, part in self._recent:
                if slot > oldest:
                    counts.update(part)
        return _quantile(counts, share) if counts.total() >= at_least else None


def _bucket(duration_ns: int) -> int:
    shift = max(duration_ns.bit_length() - _SUB_BITS - 1, 0)
    return (shift << _SUB_BITS) + (duration_ns >> shift)


def _middle(bucket: int) -> int:
    shift = max((bucket >> _SUB_BITS) - 1, 0)
    low = (bucket - (shift << _SUB_BITS)) << shift
    return low + (1 << shift >> 1)


def _quantile(counts: Counter[int], share: float) -> int | None:
    rank = share * counts.total()
    for bucket in sorted(counts):
        rank -= counts[bucket]
        if rank <= 0:
            return _middle(bucket)
    return None
