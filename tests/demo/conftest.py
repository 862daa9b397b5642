"""The gateway in this process, its backend beside it, and the spans that come out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

pytest.importorskip("opentelemetry.instrumentation.starlette", reason="needs perfkit[demo]")

from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.testclient import TestClient

from perfkit.demo import telemetry
from perfkit.demo.app import create_app
from perfkit.demo.problems import NAMES
from perfkit.demo.processes import running

from .harness import Gateway


@pytest.fixture(scope="session")
def exporter() -> InMemorySpanExporter:
    os.environ.pop("OTEL_EXPORTER_OTLP_ENDPOINT", None)
    telemetry.configure("gateway-under-test")
    # Programs that later tests start are not called so.
    os.environ.pop("OTEL_SERVICE_NAME")
    memory = InMemorySpanExporter()
    trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(memory))  # type: ignore[attr-defined]
    return memory


@pytest.fixture(scope="session")
def backend_url() -> Iterator[str]:
    with running("perfkit.demo.backend") as backend:
        yield backend.url


@pytest.fixture(scope="session")
def gateways(
    exporter: InMemorySpanExporter, backend_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[frozenset[str]], Gateway]]:
    """Return a function that gives the gateway with a set of problems; each is made once."""
    made: dict[frozenset[str], Gateway] = {}
    with ExitStack() as stack:

        def gateway(problems: frozenset[str]) -> Gateway:
            if problems not in made:
                path = tmp_path_factory.mktemp("gateway") / "gateway.db"
                app = create_app(problems, f"sqlite:///{path}", backend_url)
                telemetry.instrument_app(app)
                made[problems] = Gateway(stack.enter_context(TestClient(app)), exporter)
            exporter.clear()
            return made[problems]

        yield gateway


@pytest.fixture
def gateway(gateways: Callable[[frozenset[str]], Gateway]) -> Gateway:
    """A gateway with every problem."""
    return gateways(frozenset(NAMES))


@pytest.fixture
def mended(gateways: Callable[[frozenset[str]], Gateway]) -> Gateway:
    """A gateway without any."""
    return gateways(frozenset())
