"""Send a bounded, repeatable load to the gateway and print one line of JSON about it.

The load is open: calls leave at times that were drawn before, whether or not earlier calls have
come back, and a latency counts from the time at which its call was due. So a service that stalls
cannot hide it by slowing its clients down.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from perfkit.demo.requirements import demo_extra

if TYPE_CHECKING:
    import httpx

MAX_DURATION_S = 3600
MAX_RATE = 200
MAX_IN_FLIGHT = 10
TIMEOUT_S = 15
CITIES = ("Bergen", "Lisbon", "Nairobi", "Osaka", "Quito")


@dataclass(frozen=True)
class Call:
    """One request that is to be sent."""

    label: str
    """How the summary names it: a tool, or method and route."""
    method: str
    path: str
    body: dict[str, Any] | None = None
    key: str = "demo-key-agent"


@dataclass(frozen=True)
class Scenario:
    """What one visitor does: one or more calls at the same time."""

    share: int
    """How often it comes in a deck of all scenarios."""
    calls: Callable[[random.Random], list[Call]]


def _tool(name: str, arguments: dict[str, Any]) -> Call:
    params = {"name": name, "arguments": arguments}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return Call(name, "POST", "/tools/invoke", body)


def _get(label: str, path: str, key: str = "demo-key-dashboard") -> Call:
    return Call(label, "GET", path, key=key)


SCENARIOS = (
    # Most callers ask for the same threshold.
    Scenario(30, lambda r: [_tool("database-query", {"slower_than_ms": r.choice([0, 0, 0, 500])})]),
    # A basket of four articles is checked at once.
    Scenario(
        10,
        lambda r: [_tool("check-stock", {"sku": f"sku-{r.randrange(200)}"}) for _ in range(4)],
    ),
    Scenario(20, lambda r: [_tool("list-orders", {"user_id": r.randint(1, 40)})]),
    Scenario(
        10, lambda r: [_get("GET /users/{user_id}/orders", f"/users/{r.randint(1, 40)}/orders")]
    ),
    Scenario(15, lambda r: [_tool("search-documents", {"topic": f"topic-{r.randrange(40)}"})]),
    Scenario(25, lambda r: [_tool("plan-trip", {"city": r.choice(CITIES)})]),
    # A report has two charts, and everybody wants others.
    Scenario(
        15,
        lambda r: [_tool("render-report", {"title": f"Chart {r.randrange(10**6)}"}) for _ in "ab"],
    ),
    Scenario(20, lambda r: [_tool("weather", {"city": r.choice(CITIES)})]),
    # A family of three.
    Scenario(
        10,
        lambda r: [_tool("reserve-voucher", {"campaign": "spring"}) for _ in range(3)],
    ),
    Scenario(20, lambda r: [_tool("current-time", {})]),
    Scenario(10, lambda r: [_get("GET /tools", "/tools")]),
    Scenario(10, lambda r: [_get("GET /tools/{tool_id}", "/tools/weather")]),
    Scenario(10, lambda r: [_get("GET /health", "/health")]),
    # What goes wrong: a place, a tool, a key, an argument, a user that do not exist.
    Scenario(3, lambda r: [_tool("weather", {"city": "Atlantis"})]),
    Scenario(1, lambda r: [_tool("crystal-ball", {})]),
    Scenario(1, lambda r: [_get("GET /users/{user_id}/orders", "/users/1/orders", "wrong-key")]),
    Scenario(1, lambda r: [_tool("list-orders", {"user": "one"})]),
    Scenario(1, lambda r: [_get("GET /users/{user_id}/orders", "/users/9999/orders")]),
)


def plan(
    duration_s: float, rate: float, seed: int, scenarios: Sequence[Scenario] = SCENARIOS
) -> Iterator[tuple[float, Call]]:
    """Yield (seconds from the start, call): on average `rate` calls a second, in order of time.

    Scenarios arrive as a Poisson process, as visitors who do not know one another do. They are
    dealt from a shuffled deck, so that even a short run has each of them in its proportion.
    """
    chance = random.Random(seed)
    deck = [scenario for scenario in scenarios for _ in range(scenario.share)]
    calls_per_scenario = sum(len(each.calls(random.Random(0))) for each in deck) / len(deck)
    at_s = 0.0
    while True:
        chance.shuffle(deck)
        for scenario in deck:
            at_s += chance.expovariate(rate / calls_per_scenario)
            if at_s >= duration_s:
                return
            for call in scenario.calls(chance):
                yield at_s, call


@dataclass
class Outcomes:
    """What came back: for each label the latencies in ms, and the number of failures."""

    latencies_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, label: str, latency_ms: float, *, failed: bool) -> None:
        """Note one call."""
        self.latencies_ms[label].append(latency_ms)
        self.errors[label] += failed

    def summary(self) -> dict[str, Any]:
        """Return counts, percentiles and sums of all calls, failed or not, and by label."""
        everything = [each for latencies in self.latencies_ms.values() for each in latencies]
        tools = {
            label: {"requests": len(latencies), "errors": self.errors[label], **_spread(latencies)}
            for label, latencies in sorted(self.latencies_ms.items())
        }
        return {
            "requests": len(everything),
            "errors": sum(self.errors.values()),
            **_spread(everything),
            "tools": tools,
        }


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def _spread(latencies_ms: Sequence[float]) -> dict[str, float | None]:
    if not latencies_ms:
        return {"p50_ms": None, "p95_ms": None, "total_ms": 0}
    return {
        "p50_ms": round(percentile(latencies_ms, 0.50), 1),
        "p95_ms": round(percentile(latencies_ms, 0.95), 1),
        "total_ms": round(sum(latencies_ms), 1),
    }


async def run(url: str, duration_s: float, rate: float, seed: int) -> dict[str, Any]:
    """Send the planned calls to `url`, wait for the last answer, and return the summary."""
    import httpx

    outcomes = Outcomes()
    limits = httpx.Limits(max_connections=MAX_IN_FLIGHT)
    async with (
        # A proxy of the environment has no part in calls on this machine.
        httpx.AsyncClient(
            base_url=url, timeout=TIMEOUT_S, limits=limits, trust_env=False
        ) as client,
        asyncio.TaskGroup() as group,
    ):
        started = time.perf_counter()
        for at_s, call in plan(duration_s, rate, seed):
            due = started + at_s
            await asyncio.sleep(max(0, due - time.perf_counter()))
            group.create_task(_send(client, call, due, outcomes))
    return {"duration_s": round(time.perf_counter() - started, 1), **outcomes.summary()}


async def _send(client: httpx.AsyncClient, call: Call, due: float, outcomes: Outcomes) -> None:
    import httpx

    headers = {"authorization": f"Bearer {call.key}"}
    try:
        response = await client.request(call.method, call.path, json=call.body, headers=headers)
        failed = response.is_error or _says_error(response.json())
    except (httpx.HTTPError, ValueError):
        failed = True
    outcomes.add(call.label, (time.perf_counter() - due) * 1000, failed=failed)


def _says_error(answer: dict[str, Any]) -> bool:
    """Return whether a JSON-RPC answer reports an error of the protocol or of the tool."""
    return "error" in answer or bool(answer.get("result", {}).get("isError"))


def loopback_url(url: str) -> str:
    """Return `url`. Raises ValueError unless it is an http URL on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback or urlsplit(url).scheme != "http":
        raise ValueError(url)
    return url


def _between(low: float, high: float) -> Callable[[str], float]:
    def number(value: str) -> float:
        if not low <= float(value) <= high:
            raise argparse.ArgumentTypeError(f"must be between {low:g} and {high:g}")
        return float(value)

    return number


def main(arguments: Sequence[str] | None = None) -> None:
    """Send the load."""
    parser = argparse.ArgumentParser(prog="python -m perfkit.demo.load", description=__doc__)
    add = parser.add_argument
    add("--url", required=True, type=loopback_url, help="the gateway, on this machine")
    add("--duration", type=_between(0.1, MAX_DURATION_S), default=20, help="seconds")
    add("--rate", type=_between(0.1, MAX_RATE), default=16, help="calls per second, on average")
    add("--seed", type=int, default=1, help="the same seed gives the same calls")
    options = parser.parse_args(arguments)
    with demo_extra():
        summary = asyncio.run(run(options.url, options.duration, options.rate, options.seed))
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
