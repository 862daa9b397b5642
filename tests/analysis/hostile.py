"""Captures of every damaged or extreme shape, of any size, for tests over all derived tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tests.analysis.build import Memory, S, span_columns

MAX, MIN = 2**63 - 1, -(2**63)
NOW = 1_700_000_000_000_000_000

SERVED: dict[str, Any] = {"kind": "server", "endpoint": "GET /a", "http_status": 200, "pid": 1}
QUERY: dict[str, Any] = {"kind": "client", "db_system": "sqlite", "db_statement": "SELECT 1"}
TOOL: dict[str, Any] = {"kind": "client", "tool": "search", "tool_arguments": "{}"}
KINDS: tuple[dict[str, Any], ...] = (
    SERVED,
    {"thread_id": 1, "pid": 1, "status": "error"},
    QUERY,
    TOOL,
    {"kind": "producer"},
    {"kind": "consumer", "service": "other"},
    {"kind": "client", "peer": "other:80"},
    SERVED | {"service": "other", "scope": "second"},
)
_TEXTS = (
    *("name", "service", "kind", "status", "endpoint", "tool", "peer", "db_system"),
    *("db_statement", "instance", "scope", "http_method", "tool_arguments"),
)


def _of_all_kinds(
    count: int,
    parent: Callable[[int], int | None],
    times: Callable[[int], tuple[int, int | None]],
) -> list[S]:
    """Return spans 1 to `count`, the first of which is served."""
    spans = []
    for number in range(1, count + 1):
        start, end = times(number)
        columns = KINDS[(number - 1) % len(KINDS)]
        spans.append(S(number, start, end, parent(number), **columns))
    return spans


def _above(number: int) -> int | None:
    return number // 3 or None


def _chain(number: int) -> int | None:
    return number - 1 or None


def _during(number: int) -> tuple[int, int]:
    return NOW + number, NOW + 10_000_000 - number


SPANS: Mapping[str, Callable[[int], Iterable[S]]] = {
    "nothing": lambda _: [],
    "one span": lambda _: [S(1, NOW, NOW + 5, **SERVED)],
    "one open span": lambda _: [S(1, NOW, None, **SERVED)],
    "all at the same time": lambda n: _of_all_kinds(n, _above, lambda _: (NOW, NOW + 10)),
    "no length": lambda n: _of_all_kinds(n, _above, lambda number: (NOW + number, NOW + number)),
    "negative length": lambda n: _of_all_kinds(n, _above, lambda k: (NOW + k, NOW - k)),
    "all open": lambda n: _of_all_kinds(n, _above, lambda number: (NOW + number, None)),
    "open at the top": lambda n: _of_all_kinds(
        n, _above, lambda number: (NOW + number, None if number == 1 else NOW + number + 10)
    ),
    "its own parent": lambda n: _of_all_kinds(n, lambda number: number, _during),
    "one cycle": lambda n: _of_all_kinds(n, lambda number: number % n + 1, _during),
    "cycles of two": lambda n: _of_all_kinds(n, lambda number: ((number - 1) ^ 1) + 1, _during),
    "a cycle with branches": lambda n: _of_all_kinds(
        n, lambda number: number % 7 + 1 if number <= 7 else number // 2, _during
    ),
    "one id for all": lambda n: [S(1, *_during(k), 1, **KINDS[k % len(KINDS)]) for k in range(n)],
    "every span twice": lambda n: _of_all_kinds(n // 2, _above, _during) * 2,
    "every id twice": lambda n: [
        *_of_all_kinds(n // 2, _above, _during),
        *_of_all_kinds(n // 2, _above, lambda number: (NOW + 3 * number, NOW + 5 * number)),
    ],
    "many children of one parent": lambda n: _of_all_kinds(
        n, lambda number: 1 if number > 1 else None, lambda k: (NOW + k * 3, NOW + k * 5)
    ),
    "children one after the other": lambda n: _of_all_kinds(
        n,
        lambda number: 1 if number > 1 else None,
        lambda k: (NOW + k * 5, NOW + k * 5 + 5) if k > 1 else (NOW, NOW + n * 6),
    ),
    "deep": lambda n: _of_all_kinds(n, _chain, lambda k: (NOW + k, NOW + 4 * n - k)),
    "deep, the leaf first": lambda n: _of_all_kinds(
        n, lambda k: k + 1 if k < n else None, lambda k: (NOW + n - k, NOW + 2 * n + k)
    ),
    "deep between hosts": lambda n: [
        S(
            number,
            NOW - (number % 5) * 7,
            NOW + n - (number % 5) * 7,
            _chain(number),
            kind=("server", "client")[number % 2],
            service=f"host {number // 2 % 3}",
        )
        for number in range(1, n + 1)
    ],
    "no parent arrived": lambda n: _of_all_kinds(n, lambda number: number + 10 * n, _during),
    "a trace for each span": lambda n: [
        S(1, *_during(number), None, number, **KINDS[number % len(KINDS)]) for number in range(n)
    ],
    "apart from its parent": lambda n: _of_all_kinds(
        n, _above, lambda k: (NOW + 100 * k, NOW + 100 * k + 9)
    ),
    "nothing said": lambda n: [
        S(
            number,
            NOW,
            NOW + number,
            _above(number),
            **dict.fromkeys(("name", "service", "kind", "status", "adjusted_count")),
        )
        for number in range(1, n + 1)
    ],
    "the ends of time": lambda n: [
        S(number, start, end, _above(number), **KINDS[number % len(KINDS)])
        for number, (start, end) in enumerate(
            [(0, MAX), (MIN, MIN + 1), (MAX, MAX), (MIN, -1), (MAX - 1, MAX), (0, 0), (-5, MAX - 5)]
            * (n // 7),
            1,
        )
    ],
    "weights that are none": lambda n: [
        S(
            number,
            *_during(number),
            _above(number),
            **(KINDS[number % len(KINDS)] | {"adjusted_count": weight}),
        )
        for number, weight in enumerate(
            [0.0, -1.0, float("nan"), float("inf"), 1e300, None, 0.5] * (n // 7), 1
        )
    ],
    "text of every sort": lambda n: [
        S(
            number,
            *_during(number),
            _above(number),
            **dict.fromkeys(_TEXTS, text),
        )
        for number, text in enumerate(
            ["", "\x00", "é" * 300, "' OR 1=1 --", "{id}", "(" * 50, "\ud7ff"] * (n // 7), 1
        )
    ],
}


def _deep_stack(n: int) -> dict[str, list[Any]]:
    return {
        "stack_id": list(range(n)),
        "parent_id": [None, *range(n - 1)],
        "frame_id": [number % 2 for number in range(n)],
        "depth": list(range(n)),
    }


def _samples(n: int, **columns: Any) -> dict[str, list[Any]]:
    defaults = {
        "ts_ns": NOW,
        "duration_ns": 10,
        "count": 1,
        "pid": 1,
        "tid": 1,
        "stack_id": 0,
        "state": "running",
    }
    return {
        name: [value(number) if callable(value) else value for number in range(n)]
        for name, value in (defaults | columns).items()
    }


_FRAMES = {
    "frame_id": [0, 1],
    "function": ["main", None],
    "file": ["/srv/app/main.py", None],
    "line": [3, None],
    "category": ["app", None],
}
_METRICS = (
    *("process.cpu.utilization", "process.memory.usage", "system.cpu.utilization"),
    *("db.client.connection.count", "db.client.connection.max", "db.client.connection.wait_time"),
    *("db.client.connection.pending_requests", "process.thread.count", "something.else"),
)


def _metrics(
    n: int, values: list[float | None], kind: str | None = "gauge"
) -> dict[str, list[Any]]:
    return {
        "ts_ns": [NOW + number // len(_METRICS) * 1_000_000_000 for number in range(n)],
        "name": [_METRICS[number % len(_METRICS)] for number in range(n)],
        "value": [values[number % len(values)] for number in range(n)],
        "count": [number - 3 if kind == "histogram" else None for number in range(n)],
        "kind": [kind] * n,
        "service": ["app"] * n,
    }


Columns = dict[str, dict[str, list[Any]]]
_CYCLE = {"stack_id": [0, 1, 2], "parent_id": [2, 0, 1], "frame_id": [0, 1, 9], "depth": [0, 1, 2]}

OTHERS: Mapping[str, Callable[[int], Columns]] = {
    "samples without stacks": lambda n: {"samples": _samples(n)},
    "stacks in a circle": lambda n: {
        "samples": _samples(n, stack_id=lambda k: k % 4),
        "stacks": _CYCLE,
        "frames": _FRAMES,
    },
    "a deep stack": lambda n: {
        "samples": _samples(5, stack_id=n - 1, ts_ns=lambda k: NOW + 10 * k),
        "stacks": _deep_stack(n),
        "frames": _FRAMES,
    },
    "samples of negative length": lambda n: {
        "samples": _samples(n, duration_ns=-5, count=-1),
        "stacks": _deep_stack(3),
        "frames": _FRAMES,
    },
    "samples that say nothing": lambda n: {
        "samples": _samples(
            n, **dict.fromkeys(("ts_ns", "duration_ns", "count", "pid", "tid", "state"))
        ),
        "stacks": _deep_stack(3),
        "frames": _FRAMES,
    },
    "samples at the ends of time": lambda n: {
        "samples": _samples(
            n, ts_ns=lambda k: (MIN, MAX, 0)[k % 3], duration_ns=lambda k: (MAX, MIN)[k % 2]
        ),
        "stacks": _deep_stack(3),
        "frames": _FRAMES,
    },
    "metrics that are no numbers": lambda n: {
        "metrics": _metrics(n, [float("nan"), float("inf"), None, -1.0, 1e308])
    },
    "metrics of nothing": lambda n: {"metrics": _metrics(n, [0.0])},
    "histograms": lambda n: {"metrics": _metrics(n, [1.0, 0.0, 5.0], "histogram")},
    "metrics that say nothing": lambda n: {"metrics": _metrics(n, [None], None)},
}


def capture(shape: str, size: int) -> Memory:
    """Return a capture of one shape; `size` is about how many rows it has."""
    if shape in SPANS:
        return Memory({"spans": span_columns(SPANS[shape](size))})
    spans = span_columns(_of_all_kinds(20, _above, _during))
    return Memory({"spans": spans, **OTHERS[shape](size)})
