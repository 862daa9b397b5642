"""The gateway: an ASGI application through which clients invoke tools.

A request to `POST /tools/invoke` goes through authentication, the rate limit, the plugins, the
tool, the plugins again and serialisation. Each step is a span.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import StatusCode
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from perfkit.demo.access import DEMO_KEYS, ApiKeys, RateLimit
from perfkit.demo.database import connect
from perfkit.demo.invocation import WORKERS, Invoker, RpcError, parse
from perfkit.demo.plugins import RedactEmail, Transcript
from perfkit.demo.tools import TOOLS, Desk, ToolError
from perfkit.demo.upstream import Upstream

tracer = trace.get_tracer(__name__)


class RefusedError(Exception):
    """The caller may not call, or not now."""

    def __init__(self, http_status: int, message: str) -> None:
        super().__init__(message)
        self.http_status = http_status


def create_app(problems: frozenset[str], database_url: str, backend_url: str) -> Starlette:
    """Return the gateway's ASGI application. Raises DatabaseError."""
    database = connect(database_url, problems, WORKERS)
    return Gateway(Desk(problems, database, Upstream(backend_url))).app()


class Gateway:
    """The endpoints and what they share."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._invoker = Invoker(desk, (RedactEmail(), Transcript(desk.problems)))
        self._keys = ApiKeys(DEMO_KEYS)
        self._rate_limit = RateLimit()

    def app(self) -> Starlette:
        """Return the ASGI application."""
        return Starlette(
            routes=[
                Route("/health", self.health),
                Route("/tools", self.list_tools),
                Route("/tools/invoke", self.invoke, methods=["POST"]),
                Route("/tools/{tool_id}", self.show_tool),
                Route("/users/{user_id:int}/orders", self.user_orders),
            ],
            exception_handlers={RefusedError: refuse},
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        yield
        await self._desk.upstream.close()
        self._desk.database.dispose()

    async def health(self, _: Request) -> Response:
        """Say that the service is up."""
        return JSONResponse({"status": "ok"})

    async def list_tools(self, _: Request) -> Response:
        """List the tools."""
        return JSONResponse({"tools": [tool.describe() for tool in TOOLS.values()]})

    async def show_tool(self, request: Request) -> Response:
        """Describe one tool."""
        tool = TOOLS.get(request.path_params["tool_id"])
        if tool is None:
            return JSONResponse({"error": "there is no such tool"}, status_code=404)
        return JSONResponse(tool.describe())

    async def user_orders(self, request: Request) -> Response:
        """List a user's orders, as the tool `list-orders` does."""
        self._admit(request)
        try:
            return JSONResponse(await self._invoker.run(TOOLS["list-orders"], request.path_params))
        except ToolError as error:
            return JSONResponse({"error": str(error)}, status_code=404)

    async def invoke(self, request: Request) -> Response:
        """Serve one JSON-RPC request."""
        caller = self._admit(request)
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": None}
        try:
            message = parse(await request.body())
            reply["id"] = message.get("id")
            reply["result"] = await self._invoker.call(message, caller)
        except RpcError as error:
            reply["error"] = {"code": error.code, "message": str(error)}
        with tracer.start_as_current_span("serialize response"):
            return Response(json.dumps(reply), media_type="application/json")

    def _admit(self, request: Request) -> str:
        """Return the caller's name. Raises RefusedError for one who may not call, or not now."""
        with tracer.start_as_current_span("authenticate") as span:
            caller = self._keys.caller(request.headers.get("authorization"))
            if caller is None:
                span.set_status(StatusCode.ERROR, "unknown API key")
                raise RefusedError(401, "unknown API key")
            span.set_attribute("user.name", caller)
        with tracer.start_as_current_span("check rate limit"):
            if not self._rate_limit.allow(caller):
                raise RefusedError(429, "too many requests: slow down")
        return caller


async def refuse(_: Request, error: Exception) -> Response:
    """Answer a caller who is refused."""
    assert isinstance(error, RefusedError)
    return JSONResponse({"error": str(error)}, status_code=error.http_status)
