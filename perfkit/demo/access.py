"""Who may call, and how often: API keys and a token bucket for each of them."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field

DEMO_KEYS = {"demo-key-agent": "agent", "demo-key-dashboard": "dashboard"}
"""The keys that the load generator uses: API key -> name of the caller."""


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


class ApiKeys:
    """The known callers; only digests of their keys are kept."""

    def __init__(self, keys: dict[str, str]) -> None:
        self._callers = {_digest(key): caller for key, caller in keys.items()}

    def caller(self, authorization: str | None) -> str | None:
        """Return the name of the caller of `Bearer KEY`, or None when the key is not known."""
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        return self._callers.get(_digest(key))


@dataclass
class RateLimit:
    """A token bucket for each caller: `per_second` on average, `burst` at once."""

    per_second: float = 200
    burst: float = 400
    _buckets: dict[str, tuple[float, float]] = field(default_factory=dict)

    def allow(self, caller: str) -> bool:
        """Take one token from the caller's bucket; return False when it is empty."""
        now = time.monotonic()
        tokens, since = self._buckets.get(caller, (self.burst, now))
        tokens = min(self.burst, tokens + (now - since) * self.per_second)
        allowed = tokens >= 1
        self._buckets[caller] = (tokens - allowed, now)
        return allowed
