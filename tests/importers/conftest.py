"""The samples: one small file of every format."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

SAMPLES = Path(__file__).resolve().parent / "samples"


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the sample of the gateway's database, made from its SQL."""
    path = tmp_path_factory.mktemp("gateway") / "gateway.db"
    with sqlite3.connect(path) as database:
        database.executescript((SAMPLES / "gateway.sql").read_text(encoding="utf-8"))
    database.close()
    return path


@pytest.fixture(scope="session")
def samples(gateway: Path) -> dict[str, list[Path]]:
    """Return format name -> its samples."""
    return {
        "otlp-protobuf": [SAMPLES / "otlp.pb"],
        "otlp-json": [SAMPLES / "otlp.json", SAMPLES / "otlp-lines.jsonl"],
        "jaeger-json": [SAMPLES / "jaeger.json"],
        "pyspy-chrometrace": [SAMPLES / "pyspy-chrometrace.json"],
        "collapsed": [SAMPLES / "pyspy-raw.txt"],
        "mcp-gateway-db": [gateway],
        "request-records": [SAMPLES / "request-records.jsonl"],
        "psutil-jsonl": [SAMPLES / "psutil.jsonl", SAMPLES / "psutil-asdict.jsonl"],
        "zipkin-json": [SAMPLES / "zipkin.json"],
        "xray-json": [SAMPLES / "xray.jsonl", SAMPLES / "xray-ahead.jsonl"],
        "datadog-json": [
            SAMPLES / f"datadog{name}" for name in (".json", "-v04.msgpack", "-v05.msgpack")
        ],
        "sentry-json": [
            SAMPLES / f"sentry{name}.envelope" for name in ("", "-profile", "-profile-chunk")
        ],
        "skywalking-json": [SAMPLES / "skywalking.json"],
        "chrome-trace": [SAMPLES / "viztracer.json"],
        "speedscope": [SAMPLES / "pyinstrument.speedscope.json"],
        "pyinstrument": [SAMPLES / "pyinstrument.pyisession", SAMPLES / "pyinstrument.json"],
        "cprofile": [SAMPLES / "cprofile.prof"],
        "austin": [SAMPLES / "austin.txt", SAMPLES / "austin.mojo"],
        "cpuprofile": [SAMPLES / "node.cpuprofile"],
        "pprof": [SAMPLES / "node.pprof", SAMPLES / "go.pprof"],
        "perf-script": [SAMPLES / "perf-script.txt"],
        "prometheus-json": [SAMPLES / "prometheus.json"],
        "openmetrics": [SAMPLES / "openmetrics.txt"],
        "psutil-csv": [SAMPLES / "psutil.csv"],
        "pg-stat-statements": [SAMPLES / "pg_stat_statements.csv"],
        "postgresql-log": [
            SAMPLES / f"postgresql{name}"
            for name in (".log", "-german.log", "-csvlog.csv", "-jsonlog.json")
        ],
        "access-log": [SAMPLES / name for name in ("nginx.log", "nginx-json.log", "apache.log")],
        "locust": [SAMPLES / "locust_stats_history.csv"],
        "k6-json": [SAMPLES / "k6.json"],
        "jmeter": [SAMPLES / "jmeter.jtl", SAMPLES / "jmeter-dates.jtl"],
        "otlp-frames": [SAMPLES / "otlp-frames.pb", SAMPLES / "otlp-frames.json.zst"],
    }
