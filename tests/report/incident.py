"""A capture of a made-up incident: for a while orders wait for a pool that is full.

Two services and a database. In the middle of the capture the database gets slow for orders, the
pool of the gateway fills, orders wait and some fail; items are served as before.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from perfkit.capture import CaptureWriter

START = 1_795_416_400_000_000_000
MS = 1_000_000
S = 1_000_000_000
POOL = 8


class _Rows:
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, trace: int, parent: int | None, start: int, length: int, **columns: Any) -> int:
        self.rows.append(
            {
                "trace_hi": 7,
                "trace_lo": trace + 1,
                "span_id": len(self.rows) + 1,
                "parent_id": parent,
                "kind": "internal",
                "start_ns": START + start,
                "duration_ns": length,
                "status": "unset",
                "adjusted_count": 1.0,
                **columns,
            }
        )
        return len(self.rows)


def write_incident(path: Path, *, seconds: int = 180, rate: int = 12) -> Path:
    """Write the capture; from 12 to 15 twentieths of it orders suffer."""
    rng = np.random.default_rng(11)
    bad = (seconds * S * 12 // 20, seconds * S * 15 // 20)
    made = _Rows()
    starts = np.sort(rng.integers(0, seconds * S, seconds * rate))
    for number, start in enumerate(starts.tolist()):
        suffers = bad[0] <= start < bad[1]
        if number % 3 == 0:
            _item(made, rng, number, start)
        else:
            _order(made, rng, number, start, suffers=suffers)
    with CaptureWriter(path, command=["perfkit", "record"]) as writer:
        writer.info.id = "incident00000001"
        writer.info.created_ns = START
        writer.info.host, writer.info.system, writer.info.cores = "shop-1", "Linux", 4
        writer.info.git_commit = None
        writer.append("spans", _columns(made.rows))
        writer.append("metrics", _columns(_metrics(rng, seconds, bad)))
    return path


def _item(made: _Rows, rng: np.random.Generator, number: int, start: int) -> None:
    query = int(rng.gamma(8, 1.5) * MS)
    entry = made.add(
        number, None, start, query + 4 * MS,
        name="GET /items/{id}", kind="server", service="gateway", endpoint="GET /items/{id}",
        http_method="GET", http_status=200,
    )  # fmt: skip
    _query(
        made, number, entry, start + 2 * MS, query, "SELECT * FROM items WHERE id = 7", "gateway"
    )


def _order(
    made: _Rows, rng: np.random.Generator, number: int, start: int, *, suffers: bool
) -> None:
    wait = int(rng.gamma(4, 60 if suffers else 0.3) * MS)
    stock = int(rng.gamma(6, 4) * MS)
    query = int(rng.gamma(6, 12 if suffers else 3) * MS)
    failed = suffers and rng.random() < 0.15
    total = 6 * MS + wait + query + stock + 4 * MS
    entry = made.add(
        number, None, start, total,
        name="POST /orders", kind="server", service="gateway", endpoint="POST /orders",
        tool="place_order", http_method="POST", http_status=500 if failed else 200,
        status="error" if failed else "ok",
        attributes=json.dumps({"customer.tier": "gold" if suffers else "basic"}),
    )  # fmt: skip
    at = start + 3 * MS
    made.add(number, entry, at, wait, name="pool checkout", service="gateway",
             attributes=json.dumps({"db.client.connection.pool.name": "orders"}))  # fmt: skip
    at += wait
    _query(
        made, number, entry, at, query,
        f"UPDATE orders SET state = 'paid' WHERE id = {number}", "gateway",
    )  # fmt: skip
    at += query + 2 * MS
    call = made.add(number, entry, at, stock + 2 * MS, name="POST /reserve", kind="client",
                    service="gateway", peer="stock")  # fmt: skip
    served = made.add(number, call, at + MS, stock, name="POST /reserve", kind="server",
                      service="stock", endpoint="POST /reserve", http_method="POST",
                      http_status=200)  # fmt: skip
    _query(made, number, served, at + 2 * MS, max(stock - 4 * MS, MS),
           "SELECT free FROM stock WHERE item = 'a'", "stock")  # fmt: skip


def _query(
    made: _Rows, trace: int, parent: int, start: int, length: int, text: str, service: str
) -> None:
    made.add(
        trace, parent, start, length,
        name=text.split()[0], kind="client", service=service, peer="db.internal:5432",
        db_system="postgresql", db_statement=text,
    )  # fmt: skip


def _metrics(rng: np.random.Generator, seconds: int, bad: tuple[int, int]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for second in range(seconds + 1):
        at = second * S
        suffers = bad[0] <= at < bad[1]
        noise = rng.normal(0, 0.03, 5)
        for core in range(4):
            level = 0.25 + 0.1 * core + noise[core]
            rows.append(_point(at, "system.cpu.utilization", level, {"cpu.logical_number": core}))
        rows.append(_point(at, "process.cpu.utilization", 0.9 + noise[4], None))
        rows.append(_point(at, "process.memory.usage", 2e8 + 4e5 * second, None, "By"))
        used = POOL if suffers else int(rng.integers(1, 4))
        pool = {"db.client.connection.pool.name": "orders"}
        for state, value in (("used", used), ("idle", POOL - used)):
            rows.append(
                _point(at, "db.client.connection.count", value,
                       pool | {"db.client.connection.state": state})
            )  # fmt: skip
        rows.append(_point(at, "db.client.connection.max", POOL, pool))
        waiting = int(rng.integers(1, 4)) if suffers else 0
        rows.append(_point(at, "db.client.connection.pending_requests", waiting, pool))
    return rows


def _point(
    at: int, name: str, value: float, attributes: dict[str, Any] | None, unit: str = "1"
) -> dict[str, Any]:
    return {
        "ts_ns": START + at,
        "name": name,
        "unit": unit,
        "value": float(value),
        "kind": "gauge",
        "service": None if name.startswith("system") else "gateway",
        "instance": "shop-1" if name.startswith("system") else "pid 77",
        "attributes": json.dumps(attributes) if attributes else None,
    }


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: [row.get(key) for row in rows] for key in keys}
