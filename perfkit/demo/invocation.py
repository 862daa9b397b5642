"""One tool call, from the JSON-RPC message to the result.

Span names and attributes follow OpenTelemetry's conventions for MCP:
https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/mcp.md
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Mapping
from typing import Any

import anyio.to_thread
from opentelemetry import metrics, trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from perfkit.demo.plugins import Plugin, ToolCall
from perfkit.demo.tools import TOOLS, Desk, Result, Tool, ToolError

WORKERS = 8
"""How many tools that are plain functions run at the same time, each in a thread."""

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602

tracer = trace.get_tracer(__name__)
operation_duration = metrics.get_meter(__name__).create_histogram(
    "mcp.server.operation.duration",
    unit="s",
    description="MCP request or notification duration as observed on the receiver.",
)


class RpcError(Exception):
    """The message cannot be served; `code` is JSON-RPC's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def parse(body: bytes) -> dict[str, Any]:
    """Return the JSON-RPC message in `body`. Raises RpcError if there is none."""
    try:
        message = json.loads(body)
    except ValueError as error:
        raise RpcError(PARSE_ERROR, f"not JSON: {error}") from error
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise RpcError(INVALID_REQUEST, "not a JSON-RPC 2.0 request")
    return message


class Invoker:
    """Runs tools, and the plugins around them."""

    def __init__(self, desk: Desk, plugins: tuple[Plugin, ...]) -> None:
        self._desk = desk
        self._plugins = plugins
        self._workers = anyio.CapacityLimiter(WORKERS)

    async def call(self, message: dict[str, Any], caller: str) -> dict[str, Any]:
        """Serve a `tools/call` and return MCP's `CallToolResult`.

        A tool that fails gives a result with `isError`; another method, an unknown tool and wrong
        arguments raise RpcError.
        """
        started = time.perf_counter()
        params = message.get("params")
        if message.get("method") != "tools/call":
            raise RpcError(METHOD_NOT_FOUND, "the only method is tools/call")
        if not isinstance(params, dict):
            raise RpcError(INVALID_PARAMS, "params must be an object")
        tool = TOOLS.get(str(params.get("name")))
        labels = {"mcp.method.name": "tools/call"}
        if tool is not None:
            labels["gen_ai.operation.name"] = "execute_tool"
            labels["gen_ai.tool.name"] = tool.name
        with tracer.start_as_current_span(
            f"tools/call {tool.name}" if tool else "tools/call",
            kind=SpanKind.SERVER,
            attributes=labels,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            span.set_attribute("jsonrpc.request.id", str(message.get("id")))
            arguments = params.get("arguments", {})
            span.set_attribute("gen_ai.tool.call.arguments", json.dumps(arguments, sort_keys=True))
            try:
                if tool is None:
                    raise RpcError(INVALID_PARAMS, "there is no such tool")
                if complaint := tool.complaint(arguments):
                    raise RpcError(INVALID_PARAMS, complaint)
                call = ToolCall(tool.name, caller, arguments)
                await self._run_with_plugins(tool, call)
                return _result(call.result, is_error=False)
            except ToolError as error:
                labels["error.type"] = "tool_error"
                _fail(span, "tool_error", str(error))
                return _result(str(error), is_error=True)
            except RpcError as error:
                labels["error.type"] = str(error.code)
                span.set_attribute("rpc.response.status_code", str(error.code))
                _fail(span, str(error.code), str(error))
                raise
            finally:
                operation_duration.record(time.perf_counter() - started, labels)

    async def _run_with_plugins(self, tool: Tool, call: ToolCall) -> None:
        with tracer.start_as_current_span("plugins before"):
            for plugin in self._plugins:
                with tracer.start_as_current_span(f"plugin {plugin.name}"):
                    plugin.before(call)
        call.result = json.dumps(await self.run(tool, call.arguments))
        with tracer.start_as_current_span("plugins after"):
            for plugin in self._plugins:
                with tracer.start_as_current_span(f"plugin {plugin.name}"):
                    plugin.after(call)

    async def run(self, tool: Tool, arguments: Mapping[str, Any]) -> Result:
        """Run a tool where it belongs: on the event loop, or in a worker thread.

        Raises ToolError when the tool fails.
        """
        if inspect.iscoroutinefunction(tool.run):
            with _tool_span(tool):
                result: Result = await tool.run(self._desk, **arguments)
                return result
        return await anyio.to_thread.run_sync(
            self._run_in_thread, tool, arguments, limiter=self._workers
        )

    def _run_in_thread(self, tool: Tool, arguments: Mapping[str, Any]) -> Result:
        with _tool_span(tool):
            result = tool.run(self._desk, **arguments)
            assert isinstance(result, dict)
            return result


def _tool_span(tool: Tool) -> Any:
    """Return the span of the tool's own code, to be started in the thread where that runs."""
    return tracer.start_as_current_span(
        "run tool",
        attributes={"code.function.name": f"{tool.run.__module__}.{tool.run.__qualname__}"},
    )


def _fail(span: Span, error_type: str, message: str) -> None:
    span.set_attribute("error.type", error_type)
    span.set_status(StatusCode.ERROR, message)


def _result(content: str, *, is_error: bool) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": content}], "isError": is_error}
