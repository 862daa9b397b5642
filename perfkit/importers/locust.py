"""Locust's history of statistics, by second and request, as metrics."""

from __future__ import annotations

from pathlib import Path

from perfkit.capture import CaptureWriter
from perfkit.importers import tables
from perfkit.importers.base import Format, Source
from perfkit.importers.rows import MetricRows, scaled
from perfkit.semconv import Value

NAME = "locust"
FORMAT = Format(
    title="Locust, history of statistics (CSV)",
    made_by="`locust --csv NAME --csv-full-history …`: `NAME_stats_history.csv`",
    recognised_by="columns `Timestamp`, `User Count`, `Requests/s`",
    gives="metrics: users, requests, failures, times by request and second",
    lacks="single requests; Locust's other CSV files have no times and are not read",
    tried="Locust 2.47.0",
)

_SUM, _COUNT = "Total Average Response Time", "Total Request Count"
_PERCENTILES = ("50%", "95%", "99%", "100%")


def sniff(head: bytes, path: Path) -> bool:
    """Recognise its columns."""
    del path
    return {"Timestamp", "User Count", "Requests/s", "Name"} <= set(tables.header(head))


def read(source: Source, writer: CaptureWriter) -> None:
    """Read all rows."""
    with MetricRows(source, writer) as rows:
        for _, row in tables.rows(source, "Timestamp", "User Count", "Name"):
            ts_ns = scaled(row["Timestamp"], 10**9)
            if row["Name"] == "Aggregated":
                users = tables.number(row["User Count"])
                if users is not None:
                    rows.add(ts_ns, "locust.users", "{user}", users, service="locust")
                continue
            _request(rows, row, ts_ns)


def _request(rows: MetricRows, row: dict[str, str], ts_ns: int | None) -> None:
    attributes: dict[str, Value] = {
        "http.request.method": row.get("Type") or None,
        "http.route": row["Name"],
    }
    count, mean_ms = tables.number(row.get(_COUNT)), tables.number(row.get(_SUM))
    if count is not None and mean_ms is not None:
        rows.add(ts_ns, "http.client.request.duration", "s", mean_ms * count / 1000,
                 kind="histogram", count=round(count), service="locust",
                 attributes=attributes)  # fmt: skip
    failures = tables.number(row.get("Total Failure Count"))
    if failures is not None:
        rows.add(ts_ns, "locust.failures", "{request}", failures, kind="counter",
                 service="locust", attributes=attributes)  # fmt: skip
    for name in _PERCENTILES:
        value = tables.number(row.get(name))
        if value:
            rows.add(ts_ns, "locust.response_time", "ms", value, service="locust",
                     attributes={**attributes, "quantile": name})  # fmt: skip
