"""Data of a report, made up but consistent, and slow twins of the sums that the page makes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror=window.hacked=1>",
    '"><b>bold</b> & <a href="javascript:window.hacked=1">link</a>',
    "turned\u202egnp.exe \x07 bell",
    "long " + "x" * 5000,
)
ENDPOINTS = ["POST /tools/invoke", "GET /tools", "GET /health", *HOSTILE[:3]]
TOOLS = ["search", "weather", HOSTILE[1]]
SERVICES = ["gateway", "backend"]
SPAN_CATEGORIES = ["client", "database", "internal", "server", "tool"]
CODE_CATEGORIES = ["app", "library", "native", "stdlib", "thread"]
SECOND = 1_000_000_000


@dataclass
class Data:
    """One made-up report: what the page is given, and the arrays behind it."""

    page: dict[str, Any]
    sections: dict[str, Any] = field(default_factory=dict)

    def packed(self) -> dict[str, Any]:
        return {"page": self.page, **self.sections}


def build(
    *, requests: int = 400, span_nodes: int = 150, code_nodes: int = 2000, samples: int = 5000
) -> Data:
    """Make a report's data. The same sizes give the same data."""
    rng = np.random.default_rng(7)
    duration_ns = 20 * SECOND
    data = Data(
        {
            "start_unix_ms": 1_795_000_000_000.0,
            "duration_ns": duration_ns,
            "covered_ns": duration_ns,
            "endpoints": ENDPOINTS,
            "tools": TOOLS,
            "services": SERVICES,
            "marks": _marks(),
        }
    )
    population = _population(rng, requests, duration_ns)
    data.sections["flame_requests"] = _flame_requests(rng, population, span_nodes)
    data.sections["flame_code"] = _flame_code(rng, code_nodes, samples, duration_ns, requests)
    data.sections["slow_requests"] = {
        "requests": population,
        "coarse": False,
        "details": _details(rng, population),
    }
    data.sections["comparison"] = {"baseline": None}
    data.sections["summary"] = {"timeline": _timeline(rng, duration_ns)}
    data.sections["heatmaps"] = _heatmaps(rng, duration_ns)
    return data


def _population(rng: np.random.Generator, n: int, duration_ns: int) -> dict[str, Any]:
    tool = rng.integers(-1, len(TOOLS), n)
    return {
        "strings": [*ENDPOINTS, *TOOLS, *SERVICES],
        "start_ns": np.sort(rng.integers(0, duration_ns, n)),
        "duration_ns": (rng.lognormal(17, 1.0, n)).astype(np.int64),
        "endpoint": rng.integers(0, len(ENDPOINTS), n),
        "tool": np.where(tool < 0, -1, tool + len(ENDPOINTS)),
        "service": rng.integers(0, len(SERVICES), n) + len(ENDPOINTS) + len(TOOLS),
        "status": (rng.random(n) < 0.05).astype(np.int64),
    }


def random_tree(rng: np.random.Generator, n: int, depth: int) -> np.ndarray:
    """Return parents of n nodes, parents first, some deep and some bushy."""
    parent = np.full(n, -1, np.int64)
    level = np.zeros(n, np.int64)
    for i in range(1, n):
        near = rng.random() < 0.7
        p = max(0, i - 1 - int(rng.geometric(0.3))) if near else int(rng.integers(0, i))
        while level[p] >= depth:
            p = int(parent[p])
        parent[i] = p
        level[i] = level[p] + 1
    return parent


def _flame_requests(rng: np.random.Generator, groups: dict[str, Any], n: int) -> dict[str, Any]:
    parent = random_tree(rng, n, 8)
    names = [f"span {i % 40}" for i in range(n - len(HOSTILE))] + list(HOSTILE)
    strings = list(dict.fromkeys(names))
    label = np.array([strings.index(name) for name in names])
    requests = len(groups["start_ns"])
    cells: dict[tuple[int, int], tuple[int, int, int]] = {}
    for group in range(requests):
        for node in rng.choice(n, size=min(n, 6), replace=False):
            self_ns = int(rng.exponential(2e6)) + 1
            at = int(node)
            own = self_ns
            while at >= 0:
                total, self_before, count = cells.get((at, group), (0, 0, 0))
                cells[at, group] = (total + self_ns, self_before + own, count + 1)
                own = 0
                at = int(parent[at])
    keys = sorted(cells)
    columns = np.array([cells[key] for key in keys], dtype=np.int64)
    return {
        "tree": {
            "strings": strings,
            "label": label,
            "parent": parent,
            "category": rng.integers(0, len(SPAN_CATEGORIES), n),
            "categories": SPAN_CATEGORIES,
            "unit": "ns",
        },
        "groups": groups,
        "cells": {
            "node": np.array([node for node, _ in keys]),
            "group": np.array([group for _, group in keys]),
            "total_ns": columns[:, 0],
            "self_ns": columns[:, 1],
            "count": columns[:, 2],
            "gap_ns": np.zeros(len(keys)),
            "critical_ns": columns[:, 1],
        },
        "coarse": False,
    }


def _flame_code(
    rng: np.random.Generator, n: int, samples: int, duration_ns: int, requests: int
) -> dict[str, Any]:
    parent = random_tree(rng, n, 40)
    functions = [f"function_{i % 700}" for i in range(n - len(HOSTILE))] + list(HOSTILE)
    modules = [f"package.module_{i}" for i in range(30)]
    strings = list(dict.fromkeys([*functions, *modules]))
    place = {text: i for i, text in enumerate(strings)}
    weight = rng.pareto(0.8, n) + 0.01
    return {
        "tree": {
            "strings": strings,
            "label": np.array([place[name] for name in functions]),
            "module": np.array([place[modules[i % 30]] for i in range(n)]),
            "file": np.array([place[modules[i % 30]] for i in range(n)]),
            "line": rng.integers(1, 500, n),
            "parent": parent,
            "category": rng.integers(0, len(CODE_CATEGORIES), n),
            "categories": CODE_CATEGORIES,
            "unit": "ns",
        },
        "samples": {
            "stack": rng.choice(n, samples, p=weight / weight.sum()),
            "start_ns": np.sort(rng.integers(0, duration_ns, samples)),
            "duration": np.full(samples, 10_000_000),
            "thread": rng.integers(0, 3, samples),
            "state": rng.choice([1, 1, 1, 2], samples),
            "entry": rng.integers(-2, requests, samples),
        },
        "threads": ["MainThread (1)", "worker <b>2</b>", "worker 3"],
    }


def _details(rng: np.random.Generator, population: dict[str, Any], count: int = 30) -> Any:
    slowest = np.argsort(-population["duration_ns"], kind="stable")[:count]
    strings = [*HOSTILE, "SELECT * FROM t WHERE id = ?", '{"http.route": "/x", "k": "<b>v</b>"}']
    names = ["handle", "auth", "query", "render", "call backend"]
    strings += [*names, *SERVICES]
    columns: dict[str, list[int]] = {
        key: []
        for key in (
            *("name", "service", "category", "parent", "start_ns", "duration_ns", "self_ns"),
            *("critical", "error", "text", "attributes"),
        )
    }
    critical: dict[str, list[int]] = {"span": [], "start_ns": [], "end_ns": []}
    first, first_critical = [0], [0]
    for request in slowest:
        whole = int(population["duration_ns"][request])
        pieces = 3 + int(rng.integers(0, 12))
        edges = np.sort(rng.integers(0, whole, 2 * pieces))
        for k in range(pieces + 1):
            start, end = (0, whole) if k == 0 else (int(edges[2 * k - 2]), int(edges[2 * k - 1]))
            name = int(rng.integers(0, 4)) if k % 7 == 3 else len(HOSTILE) + 2 + k % len(names)
            row = {
                "name": name,
                "service": len(strings) - 1 - k % 2,
                "category": k % len(SPAN_CATEGORIES),
                "parent": -1 if k == 0 else 0 if k < 3 else int(rng.integers(0, k)),
                "start_ns": start,
                "duration_ns": end - start,
                "self_ns": (end - start) // 2,
                "critical": 1,
                "error": int(k == 4),
                "text": len(HOSTILE) if k % 5 == 1 else -1,
                "attributes": len(HOSTILE) + 1 if k % 2 else -1,
            }
            for key, value in row.items():
                columns[key].append(value)
            critical["span"].append(k)
            critical["start_ns"].append(start)
            critical["end_ns"].append(start + max((end - start) // 3, 1))
        first.append(len(columns["name"]))
        first_critical.append(len(critical["span"]))
    return {
        "request": slowest,
        "trace": [f"{i:032x}" for i in range(count)],
        "cpu_ratio": rng.random(count),
        "rss_bytes": rng.random(count) * 1e9,
        "hidden_error": np.zeros(count, dtype=bool),
        "dropped": np.array([3] + [0] * (count - 1)),
        "categories": SPAN_CATEGORIES,
        "first": np.array(first),
        "spans": {
            "strings": strings,
            **{key: np.array(values) for key, values in columns.items()},
        },
        "critical": {
            "first": np.array(first_critical),
            **{key: np.array(values) for key, values in critical.items()},
        },
        "code": {
            "first": np.arange(count + 1),
            "label": np.full(count, 1),
            "duration_ns": np.full(count, 2_000_000),
            "span": np.full(count, 1),
        },
    }


def _timeline(rng: np.random.Generator, duration_ns: int) -> dict[str, Any]:
    n = 20
    gaps = rng.random(n)
    gaps[5] = np.nan
    series = (
        ("requests", "requests", "count", "load", rng.integers(5, 60, n).astype(np.float32)),
        ("errors", "errors", "count", "load", rng.integers(0, 5, n).astype(np.float32)),
        ("p50_ns", "p50", "ns", "latency", (rng.random(n) * 5e7).astype(np.float32)),
        ("p95_ns", "p95", "ns", "latency", (rng.random(n) * 3e8).astype(np.float32)),
        ("cpu_ratio", "CPU of the process", "ratio", "cpu", gaps.astype(np.float32)),
        ("rss_bytes", "memory", "bytes", "memory", (5e8 + rng.random(n) * 1e7).astype(np.float32)),
    )
    keys = ("id", "title", "unit", "group", "values")
    return {
        "start_ns": 0,
        "bucket_ns": duration_ns // n,
        "series": [dict(zip(keys, one, strict=True)) for one in series],
    }


def _marks() -> list[dict[str, Any]]:
    label = "Spike of " + HOSTILE[1]
    mark = {"from_ns": 8 * SECOND, "to_ns": 10 * SECOND, "label": label, "severity": "high"}
    return [{"kind": "spike", **mark}, {"kind": "finding", **mark}]


def _heatmaps(rng: np.random.Generator, duration_ns: int) -> dict[str, Any]:
    def panel(name: str, title: str, unit: str, rows: list[str], scale: float) -> dict[str, Any]:
        columns = 80
        values = (rng.random(len(rows) * columns) * scale).astype(np.float32)
        values[rng.random(len(values)) < 0.05] = np.nan
        return {
            "id": name,
            "title": title,
            "unit": unit,
            "rows": rows,
            "start_ns": 0,
            "bucket_ns": duration_ns // columns,
            "columns": columns,
            "values": values,
        }

    cores = [f"core {i}" for i in range(4)]
    return {
        "panels": [
            {**panel("cores", "CPU of each core", "ratio", cores, 1.0), "max": 1.0},
            panel("memory", "Memory (RSS) of each process", "bytes", ["pid 1", HOSTILE[1]], 1e9),
        ],
    }


def passes(groups: dict[str, Any], index: int, **chosen: Any) -> bool:
    """Say slowly whether one request passes a filter."""
    strings = groups["strings"]
    for column in ("endpoint", "tool", "service"):
        if column in chosen:
            at = int(groups[column][index])
            if at < 0 or strings[at] != chosen[column]:
                return False
    start = int(groups["start_ns"][index])
    if not chosen.get("from_ns", 0) <= start < chosen.get("to_ns", 2**62):
        return False
    if int(groups["duration_ns"][index]) < chosen.get("min_duration_ns", 0):
        return False
    wanted = chosen.get("status")
    return wanted is None or int(groups["status"][index]) == (wanted == "error")


def request_totals(section: dict[str, Any], **chosen: Any) -> list[int]:
    """Return the total of each node over the requests that pass, slowly."""
    totals = [0] * len(section["tree"]["parent"])
    cells = section["cells"]
    for node, group, total in zip(cells["node"], cells["group"], cells["total_ns"], strict=True):
        if passes(section["groups"], int(group), **chosen):
            totals[int(node)] += int(total)
    return totals
