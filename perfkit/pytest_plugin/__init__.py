"""A plug-in for pytest: spans of each marked test, held to budgets. `pip install perfkit[pytest]`.

    @pytest.mark.perfkit("p95 < 300ms", "queries <= 3")
    def test_search(client): ...

While a marked test runs, its spans are taken from the OpenTelemetry SDK of this process, as a
capture; when it has passed, the budgets are checked and a breach fails it. `perfkit_spans` is the
same as a fixture, for whoever looks at the tables. `--perfkit-record FILE` records the spans and
stacks of the whole session. Only this process is seen; with others: `perfkit record -- pytest`.
"""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

    from perfkit.analysis.session import Tables
    from perfkit.pytest_plugin.session import SessionRecorder

_INSTALL = "perfkit: recording the spans of tests needs: pip install 'perfkit[pytest]'"
_MARKER = (
    "perfkit(*budgets): record the test's spans, and fail it when they do not keep to the budgets"
)
_RECORDER = pytest.StashKey["_Recorder"]()
_SESSION: pytest.StashKey[SessionRecorder] = pytest.StashKey()
_SAID = pytest.StashKey[list[str]]()
_WORKER = "perfkit"


class Recording:
    """The spans that ended since the test began."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spans: list[ReadableSpan] = []
        self._lock = threading.Lock()
        self._written = 0

    def add(self, span: ReadableSpan) -> None:
        """Take a span that has ended, on whatever thread."""
        with self._lock:
            self.spans.append(span)

    def tables(self) -> Tables:
        """Return the tables of what has been recorded so far; they are written as a capture."""
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

        from perfkit.analysis.session import Tables
        from perfkit.capture import Capture, CaptureWriter
        from perfkit.formats import otlp

        with self._lock:
            spans = list(self.spans)
        self._written += 1
        suffix = "" if self._written == 1 else f"-{self._written}"
        path = self.folder.with_name(f"{self.folder.name}{suffix}.perfkit")
        with CaptureWriter(path, command=["pytest"]) as writer:
            writer.add(otlp.traces_from_protobuf(encode_spans(spans).SerializeToString()))
        return Tables(Capture.open(path))

    def breaches(self, budgets: tuple[str, ...]) -> list[str]:
        """Return what does not keep to the budgets, a line each. Raises UsageError."""
        from perfkit.gate import budgets as grammar
        from perfkit.gate import judge

        limits = [grammar.parse(text) for text in budgets]
        tables = self.tables()
        return [
            f"{check.name}{f' [{check.thing}]' if check.thing else ''}: "
            + " ".join(part for part in (check.message, check.help) if part)
            for limit in limits
            for check in judge.checks(limit, [tables])
            if check.state != "passed"
        ]


class _Recorder:
    """A span processor that gives each span to the recording of the test that runs."""

    def __init__(self) -> None:
        self.current: Recording | None = None

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Nothing is known of a span before its end."""

    def on_end(self, span: ReadableSpan) -> None:
        """Keep a span that has ended."""
        if self.current is not None:
            self.current.add(span)

    def _on_ending(self, span: Any) -> None:
        """Part of the interface of newer SDKs."""

    def shutdown(self) -> None:
        """Part of the interface."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Spans are kept at once."""
        return True


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that keep captures."""
    group = parser.getgroup("perfkit")
    group.addoption(
        "--perfkit-dir",
        metavar="DIR",
        help="Keep a capture of each test that is marked with perfkit here.",
    )
    group.addoption(
        "--perfkit-record",
        metavar="FILE",
        help="Record the spans and stacks of the whole session as this capture.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)
    config.stash[_SAID] = []


def pytest_sessionstart(session: pytest.Session) -> None:
    """Begin to record the session. With pytest-xdist each worker records itself."""
    config = session.config
    name = config.getoption("--perfkit-record")
    worker = getattr(config, "workerinput", None)
    leads = worker is None and bool(getattr(config.option, "tx", None))
    if not name or leads or config.option.collectonly:
        return
    from perfkit.errors import PerfkitError

    provider = _provider()
    try:
        from perfkit.pytest_plugin.session import SessionRecorder
    except ImportError as error:
        raise pytest.UsageError(_INSTALL) from error
    path = Path(name).resolve()
    if worker is not None:
        path = path.with_name(f"{path.stem}-{worker['workerid']}{path.suffix}")
    try:
        config.stash[_SESSION] = SessionRecorder(path, provider)
    except PerfkitError as error:
        raise pytest.UsageError(f"--perfkit-record {name}: {error.message}") from error


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the recording of the session."""
    recorder = session.config.stash.get(_SESSION, None)
    if recorder is not None:
        said = session.config.stash[_SAID]
        said.append(recorder.finish())
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput[_WORKER] = said


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Keep what a worker of pytest-xdist says of its recording."""
    del error
    node.config.stash[_SAID] += getattr(node, "workeroutput", {}).get(_WORKER, [])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what was recorded."""
    for text in config.stash[_SAID]:
        terminalreporter.write_line(text)


def _provider() -> TracerProvider:
    """Return the SDK's provider, made if there is none. Raises UsageError without the extra."""
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.common import trace_encoder  # noqa: F401
        from opentelemetry.sdk.trace import TracerProvider
    except ImportError as error:
        raise pytest.UsageError(_INSTALL) from error
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    return provider


def _recorder(config: pytest.Config) -> _Recorder:
    """Return the processor of this session, put into the SDK's provider."""
    found = config.stash.get(_RECORDER, None)
    if found is not None:
        return found
    recorder = _Recorder()
    _provider().add_span_processor(recorder)  # type: ignore[arg-type]
    config.stash[_RECORDER] = recorder
    return recorder


@pytest.fixture
def perfkit_spans(request: pytest.FixtureRequest) -> Iterator[Recording]:
    """The recording of this test: `.spans` of the SDK, `.tables()` as perfkit sees them."""
    recorder = _recorder(request.config)
    keep = request.config.getoption("--perfkit-dir")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(keep or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", request.node.nodeid)[-150:].strip("-.")
        recording = Recording(folder / name)
        before, recorder.current = recorder.current, recording
        try:
            yield recording
        finally:
            recorder.current = before


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each marked test the fixture."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ["perfkit_spans"])
        if item.get_closest_marker("perfkit") and "perfkit_spans" not in fixtures:
            fixtures.insert(0, "perfkit_spans")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Check the budgets of a marked test when it has passed."""
    yield
    budgets = tuple(text for mark in item.iter_markers("perfkit") for text in mark.args)
    if not budgets:
        return
    from perfkit.errors import PerfkitError

    recording: Recording = item.funcargs["perfkit_spans"]  # type: ignore[attr-defined]
    try:
        breaches = recording.breaches(budgets)
    except PerfkitError as error:
        pytest.fail(f"perfkit: {error.message}", pytrace=False)
    if breaches:
        pytest.fail("\n".join(["perfkit: budgets are not kept", *breaches]), pytrace=False)
