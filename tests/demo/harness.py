"""A gateway in this process: calling it, and reading the spans that it exported."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.testclient import TestClient

AGENT = {"authorization": "Bearer demo-key-agent"}


class Gateway:
    """A gateway with given problems, and what it exported."""

    def __init__(self, client: TestClient, exporter: InMemorySpanExporter) -> None:
        self.client = client
        self._exporter = exporter

    def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Invoke a tool and return the JSON-RPC reply."""
        return self.send({"name": name, "arguments": arguments})

    def send(self, params: Any, method: str = "tools/call") -> dict[str, Any]:
        message = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
        response = self.client.post("/tools/invoke", json=message, headers=AGENT)
        assert response.status_code == 200
        reply: dict[str, Any] = response.json()
        return reply

    def call_together(self, count: int, name: str, **arguments: Any) -> list[dict[str, Any]]:
        """Invoke a tool several times at once."""
        with ThreadPoolExecutor(count) as pool:
            futures = [pool.submit(self.call, name, **arguments) for _ in range(count)]
            return [future.result() for future in futures]

    def spans(self, name: str = "") -> list[ReadableSpan]:
        """Return the finished spans whose name begins with `name`, in order of their start."""
        found = [span for span in self._exporter.get_finished_spans() if span.name.startswith(name)]
        return sorted(found, key=lambda span: span.start_time or 0)

    def statements(self, table: str) -> list[str]:
        """Return the SQL statements on a table that were run."""
        texts = [str((span.attributes or {}).get("db.query.text", "")) for span in self.spans()]
        return [text for text in texts if f"FROM {table}" in text]
