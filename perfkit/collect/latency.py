"""How long the requests took that came so far: a log-linear histogram, as HdrHistogram has it.

Good enough to watch by: the report computes exact percentiles. A bucket is what numbers share whose
upper 16 bits are equal as IEEE 754 floats of 32 bits: sign, exponent and 7 bits of the fraction. So
it is 1/128 of a power of two wide, and a percentile is off by less than 0.4 %.
http://hdrhistogram.org/
"""

from __future__ import annotations

import struct
import sys
import threading
import time
from array import array
from collections import Counter, deque
from collections.abc import Iterable

_UPPER_HALF = slice(1 if sys.byteorder == "little" else 0, None, 2)
_SLOT_S = 5.0
_SLOTS = 12
WINDOW_S = _SLOT_S * _SLOTS
"""What "now" means: our own number."""


class Latency:
    """Durations in ns; `add` may be called from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._old: Counter[int] = Counter()
        """What came before the slots of `_recent`."""
        self._recent: deque[tuple[int, Counter[int]]] = deque()

    def add(self, durations_ns: Iterable[int]) -> None:
        """Take durations of requests that ended about now."""
        buckets = _buckets(durations_ns)
        if not buckets:
            return
        slot = int(time.monotonic() / _SLOT_S)
        with self._lock:
            if not self._recent or self._recent[-1][0] != slot:
                self._recent.append((slot, Counter()))
                if len(self._recent) > _SLOTS:
                    self._old.update(self._recent.popleft()[1])
            self._recent[-1][1].update(buckets)

    def quantile(self, share: float) -> int | None:
        """Return a percentile of all so far; null before the first."""
        return _quantile(self._counts(-1, self._old), share)

    def recent_quantile(self, share: float, at_least: int) -> int | None:
        """Return a percentile of the last `WINDOW_S`; null with fewer than `at_least` requests."""
        counts = self._counts(int(time.monotonic() / _SLOT_S) - _SLOTS, Counter())
        return _quantile(counts, share) if counts.total() >= at_least else None

    def _counts(self, after_slot: int, others: Counter[int]) -> Counter[int]:
        with self._lock:
            counts = Counter(others)
            for slot, part in self._recent:
                if slot > after_slot:
                    counts.update(part)
        return counts


def _buckets(durations_ns: Iterable[int]) -> list[int]:
    return memoryview(array("f", durations_ns)).cast("B").cast("H")[_UPPER_HALF].tolist()


def _middle(bucket: int) -> int:
    middle: float = struct.unpack("=f", struct.pack("=I", bucket << 16 | 1 << 15))[0]
    return int(middle)


def _quantile(counts: Counter[int], share: float) -> int | None:
    rank = share * counts.total()
    for bucket in sorted(counts):
        rank -= counts[bucket]
        if rank <= 0:
            return _middle(bucket)
    return None
