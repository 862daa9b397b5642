"""Recording the demo gateway with chosen problems, as its user would: a capture, and what the
clients saw.

`python -m bench.demo_runs FOLDER --rounds 5` records the rounds that `bench.truth` compares.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from perfkit.demo.problems import NAMES
from perfkit.demo.processes import END_TIMEOUT_S, START_TIMEOUT_S, ServiceError, end, running

CONFIGURATIONS = {
    "all": [],
    **{f"mend-{name}": ["--mend", name] for name in NAMES},
    **{f"only-{name}": ["--only", name] for name in NAMES},
    "none": ["--mend", "all"],
}
"""Name -> the gateway's switches: all problems, each mended, each alone, and none."""


def record(folder: Path, name: str, duration_s: float, seed: int) -> None:
    """Write `NAME.perfkit` and `NAME.json` (the load generator's summary) into the folder."""
    port = _free_port()
    # Spans and metrics every second, as `perfkit demo` does; never through a proxy.
    environment = os.environ | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_BSP_SCHEDULE_DELAY": "1000",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    capture = folder / f"{name}.perfkit"
    perfkit = [sys.executable, "-m", "perfkit.cli", "record", "--otlp", f"127.0.0.1:{port}"]
    with (
        tempfile.TemporaryDirectory(prefix="demo-run-") as data,
        running("perfkit.demo.backend", environment=environment) as backend,
    ):
        ready = Path(data) / "ready.json"
        gateway = [sys.executable, "-m", "perfkit.demo.gateway", *CONFIGURATIONS[name]]
        gateway += ["--port", "0", "--ready-file", str(ready), "--data-dir", data]
        gateway += ["--backend-url", backend.url]
        recorder = subprocess.Popen(
            [*perfkit, "-o", str(capture), "--", *gateway],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            load = [sys.executable, "-m", "perfkit.demo.load", "--url", _url(ready, recorder)]
            load += ["--duration", f"{duration_s:g}", "--seed", str(seed)]
            summary = subprocess.check_output(load, env=environment)
            # Before the receiver goes, so that the last spans of the service behind arrive too.
            end(backend.process)
        finally:
            recorder.send_signal(signal.SIGINT)
            try:
                recorder.wait(2 * END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                end(recorder)
    (folder / f"{name}.json").write_bytes(summary)


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


def rounds(folder: Path, count: int, duration_s: float, names: list[str]) -> Iterator[Path]:
    """Record all configurations, round by round, and yield the folder of each round.

    What is recorded already is kept. A round has one seed, so that all its configurations get the
    same calls; configurations that are compared are recorded minutes apart at most.
    """
    for number in range(1, count + 1):
        place = folder / f"round-{number}"
        place.mkdir(parents=True, exist_ok=True)
        # Each round begins elsewhere, so that a slow drift of the machine favours nobody.
        shift = number * len(names) // 3 % len(names)
        for name in names[shift:] + names[:shift]:
            if not (place / f"{name}.json").exists():
                record(place, name, duration_s, seed=number)
                print(f"recorded {place.name} {name}", file=sys.stderr, flush=True)
        yield place


def main() -> None:
    """Record."""
    parser = argparse.ArgumentParser(prog="python -m bench.demo_runs", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", type=float, default=20, help="seconds of load in each run")
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    options = parser.parse_args()
    for _ in rounds(options.folder, options.rounds, options.duration, options.only):
        pass


if __name__ == "__main__":
    main()
