"""The second service: upstream tools that take as long as small network services do."""

from __future__ import annotations

import asyncio
import random

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

LATENCY_MS = {
    "charts": 120,
    "events": 45,
    "flights": 55,
    "hotels": 60,
    "stock": 40,
    "traffic": 50,
    "vouchers": 40,
    "weather": 8,
}
"""How long each upstream tool takes on average."""

UNKNOWN_PLACE = "Atlantis"
"""The place that no upstream tool knows: calls about it fail."""


def create_app() -> Starlette:
    """Return the application."""
    return Starlette(routes=[Route("/{service}/{subject}", answer, methods=["GET", "POST"])])


async def answer(request: Request) -> JSONResponse:
    """Answer after the service's latency, give or take a tenth."""
    service, subject = request.path_params["service"], request.path_params["subject"]
    if service not in LATENCY_MS:
        return JSONResponse({"error": f"no service {service}"}, status_code=404)
    await asyncio.sleep(LATENCY_MS[service] * random.uniform(0.9, 1.1) / 1000)
    if subject == UNKNOWN_PLACE:
        return JSONResponse({"error": f"{subject} is not on the map"}, status_code=404)
    return JSONResponse({"service": service, "subject": subject, "value": 7 * len(subject)})
