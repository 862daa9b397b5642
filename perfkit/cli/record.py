"""`perfkit record`: capture a live process."""

from __future__ import annotations

import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perfkit.cli.alert import SEVERITIES
from perfkit.cli.alerter import Alerter
from perfkit.cli.options import Duration, Percentage, Size
from perfkit.cli.progress import Progress
from perfkit.errors import RecordError, UsageError
from perfkit.units import duration, number, size

if TYPE_CHECKING:
    from perfkit.collect.record import Recording
    from perfkit.collect.status import Status, Summary

DEFAULT_OTLP, DEFAULT_OTLP_GRPC = "127.0.0.1:4318", "127.0.0.1:4317"
_SOME_BACKLOG_BYTES = 128 << 20  # two segments: less is the ordinary course
_TABLES = {"spans": "spans", "samples": "stack samples", "metrics": "metric points"}


@click.command()
@click.option("--pid", type=click.IntRange(min=1), help="Record this running process.")
@click.option(
    "--otlp",
    metavar="[HOST:PORT]",
    is_flag=False,
    flag_value=DEFAULT_OTLP,
    help=f"Receive spans and metrics over OTLP/HTTP; by default on {DEFAULT_OTLP}. "
    "Port 0: let the system choose.",
)
@click.option(
    "--instrument",
    is_flag=True,
    help="Start the command with OpenTelemetry in it, unchanged: see docs/instrument.md.",
)
@click.option(
    "--otlp-grpc",
    metavar="[HOST:PORT]",
    is_flag=False,
    flag_value=DEFAULT_OTLP_GRPC,
    help=f"Receive them over OTLP/gRPC; by default on {DEFAULT_OTLP_GRPC}. Needs perfkit[grpc].",
)
@click.option(
    "--otlp-token",
    envvar="PERFKIT_OTLP_TOKEN",
    help="Take OTLP only with this bearer token; better given as $PERFKIT_OTLP_TOKEN.",
)
@click.option("--duration", "duration_ns", type=Duration(), help="Stop after: 30s, 5m.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The capture to write.  [default: perfkit-DATE-TIME.perfkit]",
)
@click.option(
    "--rate",
    type=click.IntRange(1, 1000),
    help="Samples of each thread a second, to begin with; by default as many as it can bear.",
)
@click.option(
    "--max-overhead",
    type=Percentage(),
    default="2%",
    show_default=True,
    help="Sample less when recording costs the program more than this share of its speed.",
)
@click.option(
    "--blocking/--nonblocking",
    default=None,
    help="Pause the program for each sample (exact, costly), or never (the default).",
)
@click.option("--native", is_flag=True, help="Also C and C++ frames; pauses the program.")
@click.option(
    "--subprocesses/--no-subprocesses",
    default=None,
    help="Also the Python processes below it; by default when there are any.",
)
@click.option(
    "--idle/--no-idle",
    default=True,
    help="Keep the stacks of threads that wait, which show locks and slow calls (the default), "
    "or only of those that run.",
)
@click.option(
    "--gil/--no-gil",
    default=True,
    help="Note which thread holds the interpreter's lock (the default); reads some bytes of the "
    "program's memory 50 times a second.",
)
@click.option("--no-stacks", is_flag=True, help="Record no stacks (needs no permission).")
@click.option("--no-metrics", is_flag=True, help="Record no CPU, memory and other metrics.")
@click.option(
    "--sampling-ratio",
    type=click.FloatRange(0, 1, min_open=True),
    help="The program samples this share of its traces (spans that say so themselves are heeded).",
)
@click.option(
    "--tail-ratio",
    type=click.FloatRange(0, 1, min_open=True),
    help="Keep each failed or slow trace, and of the others this share for each endpoint.",
)
@click.option(
    "--tail-slow", type=Duration(), default="500ms", show_default=True, help="What slow means."
)
@click.option("--ring", type=Duration(), help="Keep only the newest: 10m. SIGUSR1 freezes it.")
@click.option("--trigger", help="End when: 'p95 > 500ms', 'cpu > 90%' or 'memory > 2GiB'.")
@click.option("--max-size", type=Size(), help="End at this size: 2GiB; in a ring: drop the oldest.")
@click.option("--max-spans", type=click.IntRange(min=1), help="The same for a number of spans.")
@click.option(
    "--alert",
    "alerts",
    multiple=True,
    metavar="TARGET",
    help="Tell while recording what is wrong: see perfkit alert --to.",
)
@click.option(
    "--alert-budget",
    "alert_budgets",
    multiple=True,
    metavar="BUDGET",
    help="Tell also when this is breached: see perfkit alert --budget.",
)
@click.option(
    "--alert-severity",
    type=click.Choice(SEVERITIES),
    help="Tell findings of this severity or a higher one.  [default: high]",
)
@click.argument("command_line", nargs=-1, type=click.UNPROCESSED, metavar="[-- CMD...]")
def command(**values: Any) -> None:
    """Capture a live process: stacks, metrics, and spans that are sent over OTLP.

    \b
    perfkit record --pid 4242 --otlp --duration 30s -o slow.perfkit
    perfkit record --otlp -- python server.py
    perfkit record --instrument -- uvicorn app:app --workers 2
    perfkit record --pid 4242 --otlp --ring 10m --trigger 'p95 > 500ms'

    Ends with ^C, after --duration, or when the program ends, and keeps everything. A program that
    perfkit started is ended with the recording, but runs on when a limit, a trigger or SIGUSR1
    ended that; its exit status is passed on.
    """
    from perfkit.collect.limits import Limits, parse_trigger
    from perfkit.collect.options import Options
    from perfkit.collect.otlp import GRPC_PORT, parse_address
    from perfkit.collect.record import Recording
    from perfkit.collect.sampling import Wishes

    alerter = Alerter.of(values["alerts"], values["alert_budgets"], values["alert_severity"])
    otlp, grpc = values["otlp"], values["otlp_grpc"]
    options = Options(
        output=values["output"] or Path(time.strftime("perfkit-%Y%m%d-%H%M%S.perfkit")),
        pid=values["pid"],
        command=values["command_line"],
        otlp=parse_address(otlp) if otlp is not None else None,
        instrument=values["instrument"],
        otlp_grpc=parse_address(grpc, "--otlp-grpc", GRPC_PORT) if grpc is not None else None,
        otlp_token=_token(values["otlp_token"]),
        stacks=not values["no_stacks"],
        metrics=not values["no_metrics"],
        duration_ns=values["duration_ns"],
        wishes=Wishes(
            rate=values["rate"],
            blocking=values["blocking"],
            native=values["native"],
            subprocesses=values["subprocesses"],
            idle=values["idle"],
            gil=values["gil"],
            max_overhead_ratio=values["max_overhead"],
        ),
        sampling=_sampling(values),
        limits=Limits(
            ring_ns=values["ring"],
            max_bytes=values["max_size"],
            max_spans=values["max_spans"],
            trigger=parse_trigger(values["trigger"]) if values["trigger"] else None,
        ),
    )
    recording = Recording(options)
    # Before anything is started: from here on a signal ends the recording in order.
    _handle_signals(recording)
    recording.start()
    alerter.start(options.output)
    _say_what_begins(recording)
    with Progress() as progress:
        tick = _Ticker(recording, progress, quiet=bool(options.command))
        reason = recording.wait(tick)
        progress.show("finishing …", force=True)
        summary = recording.stop(reason)
    alerter.finish()
    _say_what_came(summary)
    if summary.reason == "disk full":
        raise RecordError(
            f"{summary.path}: the disk is full, so recording stopped",
            hint="what was recorded until then is in the capture; free some space",
        )
    sys.exit(summary.exit_status or recording.wait_for_command() or 0)


def _sampling(values: dict[str, Any]) -> dict[str, float]:
    """Return what `CaptureInfo.sampling` is to say."""
    asked: dict[str, float] = {}
    if values["sampling_ratio"] is not None:
        asked["head_ratio"] = values["sampling_ratio"]
    if values["tail_ratio"] is not None:
        asked |= {"tail_ratio": values["tail_ratio"], "tail_slow_ns": values["tail_slow"]}
    return asked


def _token(text: str | None) -> str | None:
    """Check a bearer token (RFC 6750); what is wrong with it is said without showing it."""
    if not text:
        return None
    if not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", text):
        raise UsageError(
            "the OTLP token has characters that no bearer token may have",
            hint="make one: openssl rand -hex 16",
        )
    return text


def _handle_signals(recording: Recording) -> None:
    def interrupt(_number: int, _frame: Any) -> None:
        recording.interrupt()

    def freeze(_number: int, _frame: Any) -> None:
        recording.freeze()

    signal.signal(signal.SIGUSR1, freeze)
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    # Under nohup it is ignored, and is to stay so.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, interrupt)


class _Ticker:
    """Rewrites the live line, and says what goes wrong as soon as it is known."""

    def __init__(self, recording: Recording, progress: Progress, *, quiet: bool) -> None:
        self._recording = recording
        self._progress = progress
        self._quiet = quiet  # the terminal belongs to the command
        self._told: str | None = None
        self._shown_s = 0.0
        self._spans = 0

    def __call__(self) -> None:
        problem = self._recording.problem
        if problem and problem != self._told:
            self._told = problem
            self._progress.clear()
            click.echo(f"perfkit: warning: {problem}", err=True)
        passed_s = time.monotonic() - self._shown_s
        if not self._quiet and self._progress.enabled and passed_s >= 1:
            status = self._recording.status()
            spans = status.received.get("spans", 0)
            rate = (spans - self._spans) / passed_s if self._shown_s else None
            self._shown_s, self._spans = self._shown_s + passed_s, spans
            self._progress.show(live_line(status, rate))


def live_line(status: Status, span_rate: float | None = None) -> str:
    """Return the line that is shown while recording; `span_rate` is spans a second of late."""
    parts = [duration(status.elapsed_ns // 10**9 * 10**9) if status.elapsed_ns >= 10**9 else "0 s"]
    if status.rate is not None:
        parts.append(f"{status.threads} threads at {status.rate}/s")
    if status.samples:
        parts.append(f"{number(status.samples)} samples")
    if status.received:
        rate = f" ({number(round(span_rate))}/s)" if span_rate is not None else ""
        parts.append(f"{number(status.received.get('spans', 0))} spans{rate}")
    if status.p95_ns is not None:
        parts.append(f"p95 {duration(status.p95_ns)}")
    if status.size_bytes:
        parts.append(size(status.size_bytes))
    if status.backlog_bytes > _SOME_BACKLOG_BYTES:
        parts.append(f"{size(status.backlog_bytes)} to compact")
    if status.max_lag_ns:
        parts.append(f"lag {duration(status.max_lag_ns)}")
    if status.postponed:
        parts.append(f"{status.postponed} requests postponed")
    if status.refused:
        parts.append(f"{status.refused} requests refused")
    if status.lost:
        parts.append(f"{status.lost} segments lost")
    return "  ".join([*parts, "(^C ends it)"])


def _say_what_begins(recording: Recording) -> None:
    if recording.settings:
        click.echo(f"perfkit: stacks at {recording.settings}", err=True)
    if recording.endpoints:
        click.echo(f"perfkit: receiving OTLP at {', '.join(recording.endpoints)}", err=True)
    if recording.hint:
        click.echo(f"perfkit: {recording.hint}", err=True)
    if recording.is_open:
        click.echo(
            "perfkit: warning: other machines can send OTLP without a token; "
            "set PERFKIT_OTLP_TOKEN here, and there "
            "OTEL_EXPORTER_OTLP_HEADERS='authorization=Bearer%20TOKEN'",
            err=True,
        )


def _say_what_came(summary: Summary) -> None:
    rows = [f"{number(summary.info.rows.get(table, 0))} {name}" for table, name in _TABLES.items()]
    click.echo(
        f"perfkit: {summary.reason} after {duration(summary.duration_ns)}: {', '.join(rows)}",
        err=True,
    )
    for loss in summary.info.lost:
        click.echo(f"  lost: {number(loss.count)} {loss.what}: {loss.why}", err=True)
    for note in summary.info.notes:
        click.echo(f"  note: {note}", err=True)
    report = summary.path.with_suffix(".html")
    click.echo(f"  wrote {summary.path}; next: perfkit report {summary.path} -o {report}", err=True)
