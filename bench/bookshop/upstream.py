"""The services behind the bookshop: they answer after a while, and one fails at times."""

from __future__ import annotations

import asyncio
import itertools
import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

_LATENCY_MS = {"rates": 40, "covers": 100, "shipping": 20, "tax": 10}
_OTHERS_MS = 80
_calls = itertools.count()


async def answer(request: Request) -> JSONResponse:
    """Answer after the service's latency."""
    service = request.path_params["service"]
    await asyncio.sleep(_LATENCY_MS.get(service, _OTHERS_MS) / 1000)
    if service == "shipping" and os.environ.get("UPSTREAM_FAILS") and next(_calls) % 2:
        return JSONResponse({"error": "overloaded"}, status_code=503)
    return JSONResponse({"value": 4.2})


app = Starlette(routes=[Route("/{service}/{subject}", answer)])
