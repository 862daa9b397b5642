"""The gateway's clients for the second service, and the TLS context that they share."""

from __future__ import annotations

import ssl

import certifi
import httpx

TIMEOUT_S = 5.0


def tls_context() -> ssl.SSLContext:
    """Return a TLS context that trusts the certificates of the `certifi` bundle.

    Parsing the bundle takes tens of milliseconds of CPU: build one and keep it.
    """
    return ssl.create_default_context(cafile=certifi.where())


class Upstream:
    """One synchronous client for tools that run in threads, one asynchronous for the others."""

    def __init__(self, base_url: str) -> None:
        context = tls_context()
        self.base_url = base_url
        self.blocking = httpx.Client(base_url=base_url, verify=context, timeout=TIMEOUT_S)
        self.awaited = httpx.AsyncClient(base_url=base_url, verify=context, timeout=TIMEOUT_S)

    async def close(self) -> None:
        """Close both clients."""
        self.blocking.close()
        await self.awaited.aclose()
