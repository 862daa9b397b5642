from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from perfkit.collect.command import Command

EXPORTER = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


def interval(path: Path, exporter: dict[str, str]) -> str:
    """Return how often a command that is started so sends its metrics."""
    code = "import os, sys; open(sys.argv[1], 'w').write(os.environ.get(sys.argv[2], 'unset'))"
    words = (sys.executable, "-c", code, str(path), "OTEL_METRIC_EXPORT_INTERVAL")
    command = Command(words, {}, exporter)
    while command.running:
        time.sleep(0.01)
    return path.read_text()


def test_metrics_are_sent_often_enough_for_a_short_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OTEL_METRIC_EXPORT_INTERVAL", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert interval(tmp_path / "ours", EXPORTER) == "5000"
    assert interval(tmp_path / "none", {}) == "unset"
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "700")
    assert interval(tmp_path / "own", EXPORTER) == "700"
