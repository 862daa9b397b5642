"""Runs at the start of every Python that `perfkit record --instrument` started, and its children.

Does what `opentelemetry-instrument` does, with the OpenTelemetry of the program's own environment,
adds perfkit's span processor, and reports to perfkit what it could do: one JSON object a line. The
program is never harmed: what fails is reported and left out. Imports nothing of perfkit, which may
be in another environment; runs on Python 3.9 and later.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import json
import os
import sys
import threading
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
REPORT, FOLDER = "PERFKIT_INSTRUMENT_REPORT", "PERFKIT_INSTRUMENT_FOLDER"
_MAX_FORK_DELAY_S = 2.0


def _report(**what: object) -> None:
    line = json.dumps({"pid": os.getpid(), "executable": sys.executable, **what}) + "\n"
    try:
        # Without O_CREAT: when the recording is over, the file is gone.
        descriptor = os.open(os.environ[REPORT], os.O_WRONLY | os.O_APPEND)
    except (OSError, KeyError):
        return
    try:
        os.write(descriptor, line.encode())
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _elsewhere() -> list[str]:
    return [path for path in sys.path if os.path.abspath(path) != HERE]


def _run_hidden_one() -> None:
    """Run the `sitecustomize` of the environment, which ours stands before."""
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", _elsewhere())
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


def _instrument() -> None:
    try:
        from opentelemetry.instrumentation.auto_instrumentation import initialize
        from opentelemetry.sdk.version import __version__ as version
    except ImportError as error:
        _report(missing=str(error))
        return
    _report(begun=True)
    before = os.environ.get("PYTHONPATH", "")
    # What is started while OpenTelemetry is set up must not set it up in turn.
    kept = [path for path in before.split(os.pathsep) if path and path != HERE]
    os.environ["PYTHONPATH"] = os.pathsep.join(kept)
    try:
        initialize()
        _add_processor()
        _report(sdk=version)
    finally:
        os.environ["PYTHONPATH"] = before


def _perfkits(name: str) -> Any:
    """Load a module of perfkit, which may be in another environment, by its file."""
    path = os.path.join(os.environ[FOLDER], f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"perfkit_{name}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _add_processor() -> None:
    from opentelemetry import metrics, trace

    processor, measures = _perfkits("otel"), _perfkits("otel_metrics")
    provider = trace.get_tracer_provider()
    if not hasattr(provider, "add_span_processor"):
        raise RuntimeError("OpenTelemetry did not set its SDK up")
    importlib.import_module("perfkit_open_spans").watch(provider)  # stands beside this file
    provider.add_span_processor(processor.SpanProcessor())
    measures.measure_garbage_collection()
    measures.measure_thread_pools()
    for reader in getattr(
        getattr(metrics.get_meter_provider(), "_sdk_config", None), "metric_readers", ()
    ):
        _keep_across_forks(reader)


def _keep_across_forks(reader: Any) -> None:
    """Let no process fork while metrics are exported.

    The SDK starts its exporting thread anew in a forked worker, but a lock that the thread of the
    parent held at that moment would never be released there, and the worker's metrics would stop.
    """
    lock = threading.Lock()
    collect = reader.collect

    def collect_between_forks(*args: Any, **options: Any) -> Any:
        with lock:
            return collect(*args, **options)

    def release() -> None:
        if lock.locked():
            lock.release()

    reader.collect = collect_between_forks
    os.register_at_fork(
        before=lambda: lock.acquire(timeout=_MAX_FORK_DELAY_S),
        after_in_parent=release,
        after_in_child=release,
    )


_run_hidden_one()
if REPORT in os.environ:
    try:
        _instrument()
    except Exception as error:
        _report(failed=f"{type(error).__name__}: {error}")
