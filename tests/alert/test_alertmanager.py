"""A real Alertmanager (Debian's) takes alerts, and a recording tells it while it goes on."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from perfkit.cli.alert import command
from tests.alert.test_alert import requests
from tests.analysis.build import write

PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        PROGRAM is None,
        reason="no Alertmanager (Debian: apt-get install prometheus-alertmanager)",
    ),
]
CONFIG = """
route: {receiver: nobody, group_wait: 1s}
receivers: [{name: nobody}]
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def until(holds: Callable[[], Any], seconds: float = 180) -> Any:
    end = time.monotonic() + seconds
    while True:
        if found := holds():
            return found
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[str]:
    """Return HOST:PORT of a running one."""
    assert PROGRAM is not None
    config = tmp_path / "alertmanager.yml"
    config.write_text(CONFIG)
    host = f"127.0.0.1:{free_port()}"
    with (tmp_path / "alertmanager.log").open("wb") as log:
        process = subprocess.Popen(
            [
                PROGRAM,
                f"--config.file={config}",
                f"--storage.path={tmp_path / 'storage'}",
                f"--web.listen-address={host}",
                "--cluster.listen-address=",
            ],
            stdout=log,
            stderr=log,
        )

    def ready() -> bool:
        assert process.poll() is None, (tmp_path / "alertmanager.log").read_text()
        try:
            with urllib.request.urlopen(f"http://{host}/-/ready") as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    until(ready)
    yield host
    process.send_signal(signal.SIGTERM)
    process.wait(30)


def alerts(host: str) -> dict[str, Any]:
    """Return the alerts that it holds for active, by name."""
    with urllib.request.urlopen(f"http://{host}/api/v2/alerts?active=true") as answer:
        return {one["labels"]["alertname"]: one for one in json.load(answer)}


def test_alerts_come_and_go(alertmanager: str, tmp_path: Path) -> None:
    sick = write(tmp_path / "sick.perfkit", requests(500, 800))
    well = write(tmp_path / "well.perfkit", requests(0, 0))
    for capture, number in ((sick, 1), (sick, 1), (well, 0)):
        done = CliRunner().invoke(
            command,
            [
                str(capture),
                "--to",
                f"alertmanager://{alertmanager}",
                "--state",
                str(tmp_path / "s"),
            ],
            catch_exceptions=False,
        )
        assert done.exit_code == 0, done.stderr
        found = until(lambda: alerts(alertmanager)) if number else None
        if found:
            (name,) = (one for one in found if one == "PerfkitSlowRequests")
            assert found[name]["labels"]["endpoint"] == "GET /a"
            assert "instead of" in found[name]["annotations"]["description"]
    until(lambda: "PerfkitSlowRequests" not in alerts(alertmanager))


SERVICE = """
import json, os, time, urllib.request
url = os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] + "/v1/traces"
end = time.time() + 25
number = 0
while time.time() < end:
    spans = []
    for _ in range(20):
        number += 1
        now = time.time_ns()
        slow = 400_000_000 if number % 3 == 0 else 10_000_000
        ids = {"traceId": f"{number:032x}"}
        spans.append({**ids, "spanId": f"{number:015x}a", "name": "POST /buy", "kind": 2,
                      "startTimeUnixNano": str(now - slow), "endTimeUnixNano": str(now)})
        for query in range(9):
            begin = now - slow + query * slow // 10
            spans.append({**ids, "spanId": f"{number:015x}{query}",
                          "parentSpanId": f"{number:015x}a", "name": "SELECT", "kind": 3,
                          "startTimeUnixNano": str(begin),
                          "endTimeUnixNano": str(begin + slow // 11), "attributes": [
                {"key": "db.system", "value": {"stringValue": "postgresql"}},
                {"key": "db.statement",
                 "value": {"stringValue": f"SELECT * FROM t WHERE id = {query}"}}]})
    body = {"resourceSpans": [{"resource": {"attributes": [
        {"key": "service.name", "value": {"stringValue": "shop"}}]},
        "scopeSpans": [{"spans": spans}]}]}
    request = urllib.request.Request(url, json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    urllib.request.urlopen(request).read()
    time.sleep(0.2)
"""


def test_a_recording_tells_and_is_not_held_up_by_one_that_is_down(
    alertmanager: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "service.py").write_text(SERVICE)
    words = [sys.executable, "-m", "perfkit.cli", "record", "--otlp", "127.0.0.1:0"]
    words += ["--no-stacks", "--alert", f"alertmanager://{alertmanager}"]
    words += ["--alert-budget", "max < 1us", "--alert-severity", "low"]
    words += ["--alert", "alertmanager://127.0.0.1:1", "-o", str(tmp_path / "live.perfkit")]
    words += ["--", sys.executable, str(tmp_path / "service.py")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "live.perfkit" / "capture.json").exists()
    found = alerts(alertmanager)
    assert {"PerfkitFinding", "PerfkitBudget"} <= set(found), done.stderr
    assert "alertmanager://127.0.0.1:1 cannot be reached" in done.stderr
    # What could not be told waits.
    waiting = json.loads((tmp_path / "state" / "perfkit" / "alerts.json").read_text())
    assert sorted(len(one["waiting"]) > 0 for one in waiting.values()) == [False, True]
