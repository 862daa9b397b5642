"""`perfkit demo`: a real gateway with planted problems, recorded, analysed and reported."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perfkit.cli.files import check_writable
from perfkit.cli.options import Duration
from perfkit.cli.progress import Progress
from perfkit.errors import PerfkitError, UsageError

if TYPE_CHECKING:
    from perfkit.collect.options import Options

_START_TIMEOUT_NS = 60 * 10**9


@click.command(epilog="Example: perfkit demo -o demo-report.html --mend index,cache")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("demo-report.html"),
    show_default=True,
    help="The report to write.",
)
@click.option("--duration", type=Duration(), default="20s", show_default=True, help="Of the load.")
@click.option("--mend", default="none", show_default=True, help="Problems to mend: a,b or all.")
@click.option("--only", help="Leave only this problem in.")
@click.option("--seed", default=1, show_default=True, help="The same seed sends the same calls.")
@click.option(
    "--keep", type=click.Path(path_type=Path), help="Keep the capture here, to look at it further."
)
@click.pass_context
def command(
    ctx: click.Context,
    output: Path,
    duration: int,
    mend: str,
    only: str | None,
    seed: int,
    keep: Path | None,
) -> None:
    """Run a small tool gateway with planted problems under load, and write its report.

    The gateway is an ordinary Starlette service with OpenTelemetry; nothing in it is made for
    perfkit. Each problem has a switch that mends it: cache, pool, n_plus_one, index, serial,
    blocking, hot_code, lock, leak.
    """
    _require_extra()
    _check_problems(mend, only)
    from perfkit.cli import report

    check_writable(output)
    _end_on_sigterm()
    switches = ["--only", only] if only else ["--mend", mend]
    with _capture_path(keep) as capture:
        _record(capture, duration, switches, seed)
        ctx.invoke(report.command, capture=capture, output=output, title="Demo gateway")
        click.echo(f"Open it in a browser: {output.resolve().as_uri()}", err=True)
        if keep:
            click.echo(f"The capture: {keep} (try: perfkit show {keep})", err=True)


def _end_on_sigterm() -> None:
    """Leave through the `finally` clauses, which end what was started, as ^C does."""

    def end(signum: int, _frame: Any) -> None:
        raise SystemExit(128 + signum)

    signal.signal(signal.SIGTERM, end)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, end)


def _require_extra() -> None:
    needed = ("httpx", "opentelemetry.sdk", "sqlalchemy", "starlette", "uvicorn")
    missing = [name for name in needed if not _installed(name)]
    if missing:
        raise PerfkitError(
            f"the demo needs packages that are not installed: {', '.join(missing)}",
            hint="pip install 'perfkit[demo]'",
        )


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _check_problems(mend: str, only: str | None) -> None:
    from perfkit.demo.problems import select

    try:
        select(None if only else mend, only)
    except ValueError as error:
        raise UsageError(str(error)) from error


@contextmanager
def _capture_path(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield keep
        return
    folder = Path(tempfile.mkdtemp(prefix="perfkit-demo-"))
    try:
        yield folder / "demo.perfkit"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _record(capture: Path, duration_ns: int, switches: list[str], seed: int) -> None:
    """Record the gateway under load into `capture`."""
    from perfkit.collect.options import Options
    from perfkit.collect.sampling import Wishes
    from perfkit.demo.processes import ServiceError, running

    port = _free_port()
    # Spans and metrics every second instead of every five and sixty: the demo is short.
    often = {"OTEL_BSP_SCHEDULE_DELAY": "1000", "OTEL_METRIC_EXPORT_INTERVAL": "1000"}
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
    environment = os.environ | often | endpoint
    click.echo("starting the gateway and the service behind it", err=True)
    with tempfile.TemporaryDirectory(prefix="perfkit-demo-") as folder:
        ready_file = Path(folder) / "ready.json"
        try:
            with running("perfkit.demo.backend", environment=environment) as backend:
                gateway = [sys.executable, "-m", "perfkit.demo.gateway", *switches]
                gateway += ["--port", "0", "--ready-file", str(ready_file)]
                gateway += ["--backend-url", backend.url, "--data-dir", folder]
                options = Options(
                    output=capture,
                    command=tuple(gateway),
                    otlp=("127.0.0.1", port),
                    # On a small machine the load leaves no core free, and nobody waits for it.
                    wishes=Wishes(max_overhead_ratio=1),
                    # What is called here is on this machine: never through a proxy.
                    env=often | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
                )
                _Demo(options, ready_file, backend.process, duration_ns, seed).run()
        except ServiceError as error:
            raise PerfkitError(str(error)) from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Demo:
    """The recording and the load: the load begins when the gateway serves; its end ends both."""

    def __init__(
        self,
        options: Options,
        ready_file: Path,
        backend: subprocess.Popen[bytes],
        duration_ns: int,
        seed: int,
    ) -> None:
        from perfkit.collect.record import Recording

        self._recording = Recording(options)
        self._ready_file = ready_file
        self._backend = backend
        self._duration_s = duration_ns / 1e9
        self._seed = seed
        self._load: subprocess.Popen[bytes] | None = None
        self._progress = Progress()

    def run(self) -> None:
        """Record until the load is over."""
        from perfkit.demo.processes import end

        self._recording.start()
        reason: str = "interrupted"
        try:
            with self._progress:
                reason = self._recording.wait(self._tick)
        finally:
            if self._load is not None and self._load.poll() is None:
                self._load.terminate()
            # Before the receiver goes, so that the last spans of the service behind arrive too.
            end(self._backend)
            self._recording.stop()
        if self._load is None or self._load.wait() != 0:
            raise PerfkitError(
                f"the load did not run to its end ({reason})",
                hint="try the parts by hand: python -m perfkit.demo.gateway --help",
            )

    def _tick(self) -> None:
        status = self._recording.status()
        spans = status.received.get("spans", 0)
        self._progress.show(f"recording: {status.elapsed_ns / 1e9:.0f} s, {spans} spans")
        if self._load is None:
            if self._ready_file.exists():
                self._start_load(json.loads(self._ready_file.read_text())["url"])
            elif status.elapsed_ns > _START_TIMEOUT_NS:
                self._recording.interrupt()
        elif self._load.poll() is not None:
            self._recording.interrupt()

    def _start_load(self, url: str) -> None:
        self._progress.clear()
        click.echo(f"recording it for {self._duration_s:g} s under load", err=True)
        load = [sys.executable, "-m", "perfkit.demo.load", "--url", url]
        load += ["--duration", f"{self._duration_s:g}", "--seed", str(self._seed)]
        self._load = subprocess.Popen(load, stdout=subprocess.DEVNULL)
