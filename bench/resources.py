"""What it costs to measure resources, and what the span processor costs on an event loop."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import psutil

from bench.measure import Row
from perfkit.collect.resources.sampler import MAX_COST_RATIO, ResourceSampler

READINGS = 40
_TARGET = """
import socket, sys, threading, time
server = socket.create_server(("127.0.0.1", 0))
kept = []
for _ in range(30):
    kept += [socket.create_connection(server.getsockname()), server.accept()[0]]
for _ in range(20):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
print("ready", flush=True)
time.sleep(600)
"""
_LOOP = """
import asyncio, sys, time
from opentelemetry.sdk.trace import TracerProvider
from perfkit.otel import SpanProcessor
provider = TracerProvider()
if sys.argv[1] == "watched":
    provider.add_span_processor(SpanProcessor())
tracer = provider.get_tracer("bench")
async def task():
    with tracer.start_as_current_span("request"):
        for _ in range(10_000):
            await asyncio.sleep(0)
async def main():
    await asyncio.gather(*(task() for _ in range(10)))
asyncio.run(main())
began = time.process_time()
asyncio.run(main())
print((time.process_time() - began) / 100_000)
"""


def _with_psutil(process: psutil.Process) -> None:
    """Read with psutil what it has of the same: about half."""
    with process.oneshot():
        for read in ("cpu_times", "memory_info", "num_threads", "num_fds", "io_counters"):
            getattr(process, read)()
        process.num_ctx_switches()
    process.net_connections("tcp")
    psutil.cpu_times(percpu=True)
    psutil.virtual_memory()
    psutil.swap_memory()
    psutil.net_io_counters(pernic=True)
    psutil.disk_io_counters(perdisk=True)


def rows() -> list[Row]:
    """Measure one process with 20 threads and 60 connections, and steps of a loop."""
    return [_sampling(), _steps()]


def _sampling() -> Row:
    target = subprocess.Popen([sys.executable, "-c", _TARGET], stdout=subprocess.PIPE)
    assert target.stdout is not None
    target.stdout.readline()
    process = psutil.Process(target.pid)
    try:
        sampler = ResourceSampler(lambda: [target.pid], target.pid, lambda _: True)
        ours, theirs = [], []
        for _ in range(READINGS):
            began = time.thread_time()
            sampler.measure().encode()
            ours.append(time.thread_time() - began)
            began = time.thread_time()
            _with_psutil(process)
            theirs.append(time.thread_time() - began)
            time.sleep(0.25)
    finally:
        target.kill()
        target.wait()
        target.stdout.close()
    mean, peer = statistics.mean(ours), statistics.mean(theirs)
    return Row(
        "resource metrics, one reading a second, CPU of the measuring thread",
        f"{mean * 100:.2f} % of a core",
        f"psutil reading half as much: {peer * 100:.2f} %",
        f"{mean / peer:.2f}×",
        f"< {MAX_COST_RATIO * 100:.1f} % of a core",
        mean < MAX_COST_RATIO,
    )


def _steps() -> Row:
    def seconds(mode: str) -> float:
        done = subprocess.run(
            [sys.executable, "-c", _LOOP, mode], capture_output=True, text=True, check=True
        )
        return float(done.stdout)

    pairs = [(seconds("alone"), seconds("watched")) for _ in range(5)]
    alone, watched = (min(each) for each in zip(*pairs, strict=True))
    return Row(
        "span processor, a step of an event loop that does nothing else, CPU",
        f"{(watched - alone) * 1e6:.2f} µs more",
        f"the same loop without it: {alone * 1e6:.2f} µs",
        f"{watched / alone:.2f}×",
        "none; a request has some ten steps",
        None,
    )
