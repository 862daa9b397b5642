"""The services behind the helpdesk: they answer after a while, and one fails at times."""

from __future__ import annotations

import asyncio
import os
import random

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

_LATENCY_MS = {"rates": 150, "parcels": 50, "shipping": 30, "carriers": 5}
_OTHERS_MS = 80
_chance = random.Random(1)


async def answer(request: Request) -> JSONResponse:
    """Answer after the service's latency."""
    service = request.path_params["service"]
    await asyncio.sleep(_LATENCY_MS.get(service, _OTHERS_MS) / 1000)
    if service == "shipping" and os.environ.get("UPSTREAM_FAILS") and _chance.random() < 0.6:
        return JSONResponse({"error": "overloaded"}, status_code=503)
    return JSONResponse({"value": 4.2})


app = Starlette(routes=[Route("/{service}/{subject}", answer)])
