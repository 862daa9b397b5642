"""Recording the demo gateway with chosen problems, as its user would: one capture a run.

Other work on the machine disturbs a run far more than most problems cost. So gateways that are
compared take turns under the same calls (`bench.turns`).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.turns import Turns, before_all_others, take_turns
from perfkit.demo.load import SCENARIOS, Scenario
from perfkit.demo.problems import NAMES, PROBLEMS
from perfkit.demo.processes import END_TIMEOUT_S, START_TIMEOUT_S, ServiceError, end, running


@dataclass(frozen=True)
class Load:
    """The load on each gateway: seconds, calls a second, and the seed that draws them."""

    duration_s: float = 20
    rate: float = 16
    seed: int = 1


def record(captures: Mapping[Path, Sequence[str]], load: Load) -> None:
    """Record gateways at the same time: capture -> switches of its gateway.

    Raises ServiceError when one does not come up.
    """
    with ExitStack() as stack:
        started = [
            stack.enter_context(_gateway(path, switches)) for path, switches in captures.items()
        ]
        options = ["--duration", f"{load.duration_s:g}", "--rate", f"{load.rate:g}"]
        options += ["--seed", str(load.seed)]
        loads = [
            subprocess.Popen(
                [sys.executable, "-m", "perfkit.demo.load", "--url", url, *options],
                stdout=subprocess.DEVNULL,
            )
            for url, _ in started
        ]
        try:
            if any(one.wait() for one in loads):
                raise ServiceError("the load did not run to its end")
        finally:
            for one in loads:
                one.kill()
        # Before the receivers go, so that the last spans of the services behind arrive too.
        for _, end_backend in started:
            end_backend()


@contextmanager
def _gateway(capture: Path, switches: Sequence[str]) -> Iterator[tuple[str, Callable[[], None]]]:
    """Serve and record a gateway; give its URL, and what ends the service behind it."""
    port = _free_port()
    # Spans and metrics every second, as `perfkit demo` does; never through a proxy.
    environment = os.environ | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_BSP_SCHEDULE_DELAY": "1000",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    perfkit = [sys.executable, "-m", "perfkit.cli", "record", "--otlp", f"127.0.0.1:{port}"]
    # As `perfkit demo` does: the load is on the same machine and leaves no core free.
    perfkit += ["--max-overhead", "100%"]
    with (
        tempfile.TemporaryDirectory(prefix="demo-run-") as data,
        running("perfkit.demo.backend", environment=environment) as backend,
    ):
        ready = Path(data) / "ready.json"
        gateway = [sys.executable, "-m", "perfkit.demo.gateway", *switches, "--port", "0"]
        gateway += ["--ready-file", str(ready), "--data-dir", data, "--backend-url", backend.url]
        recorder = subprocess.Popen(
            [*perfkit, "-o", str(capture), "--", *gateway],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield _url(ready, recorder), lambda: end(backend.process)
        finally:
            recorder.send_signal(signal.SIGINT)
            try:
                recorder.wait(2 * END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                end(recorder)


def _url(ready: Path, recorder: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 2 * START_TIMEOUT_S
    while not ready.exists():
        if recorder.poll() is not None or time.monotonic() > deadline:
            raise ServiceError("the recorded gateway did not start")
        time.sleep(0.02)
    return str(json.loads(ready.read_text())["url"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pairs(
    folder: Path, rounds: int, turns: Turns
) -> Iterator[tuple[str, Path, Path, list[dict[str, Any]]]]:
    """Record each problem's gateway, with all problems, in turns with one in which it is mended.

    `all` mends all of them, under the load of all. Yields problem, capture before, capture after
    and the turns; what is in the folder already is kept.
    """
    affected = {problem.name: problem.affects for problem in PROBLEMS if problem.name != "leak"}
    for number in range(1, rounds + 1):
        for name, labels in {**affected, "all": None}.items():
            place = folder / f"round-{number}" / name
            before, after = place / "before.perfkit", place / "after.perfkit"
            taken = place / "turns.json"
            if not taken.exists():
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir(parents=True)
                scenarios = [one for one in SCENARIOS if labels is None or _calls(one, labels)]
                mine = replace(turns, scenarios=scenarios, seed=number)
                with before_all_others() as quiet:
                    if not quiet:
                        print("other work on the machine may disturb this", file=sys.stderr)
                    slices = _in_turns({before: [], after: ["--mend", name]}, mine)
                taken.write_text(json.dumps(slices))
            yield name, before, after, json.loads(taken.read_text())


def _calls(scenario: Scenario, labels: Sequence[str]) -> bool:
    return any(call.label in labels for call in scenario.calls(random.Random(0)))


def _in_turns(captures: Mapping[Path, Sequence[str]], turns: Turns) -> list[dict[str, object]]:
    with ExitStack() as stack:
        started = {
            path.stem: stack.enter_context(_gateway(path, switches))
            for path, switches in captures.items()
        }
        slices = take_turns({side: url for side, (url, _) in started.items()}, turns)
        # Before the receivers go, so that the last spans of the services behind arrive too.
        for _, end_backend in started.values():
            end_backend()
    return slices


def alone(folder: Path, rounds: int, load: Load) -> Iterator[tuple[str, Path]]:
    """Record a gateway with each problem alone, with all of them, and with none.

    Yields the problem (or `all` or `none`) and the capture.
    """
    configurations = {name: ["--only", name] for name in NAMES}
    configurations |= {"all": [], "none": ["--mend", "all"]}
    for number in range(1, rounds + 1):
        for name, switches in configurations.items():
            place = folder / f"round-{number}" / f"only-{name}"
            capture = place / "alone.perfkit"
            _once(place / "done", {capture: switches}, replace(load, seed=number))
            yield name, capture


def _once(done: Path, captures: Mapping[Path, Sequence[str]], load: Load) -> None:
    if not done.exists():
        shutil.rmtree(done.parent, ignore_errors=True)
        done.parent.mkdir(parents=True)
        record(captures, load)
        done.touch()
