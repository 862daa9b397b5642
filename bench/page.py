"""The report of a code tree of 100,000 nodes in a real Chromium."""

from __future__ import annotations

import random
import statistics
import tempfile
from pathlib import Path

from bench.measure import Row, isolated

NODES, SAMPLES, ZOOMS = 100_000, 200_000, 9
_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
_PAINTED = """async (node) => {
  const start = performance.now();
  await perfkit.flame.views.code.zoom(node);
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  return performance.now() - start;
}"""
_FIRST = """() => performance.getEntriesByName('perfkit:section flame_code')
  .map(entry => entry.startTime + entry.duration)[0]"""


def generate(capture: str) -> int:
    """Write a capture of random stacks with `NODES` call-tree nodes."""
    import numpy as np

    from perfkit.capture import CaptureWriter
    from perfkit.stacks import Frame

    rng = random.Random(1)
    with CaptureWriter(Path(capture)) as writer:
        nodes = [(writer.stacks.child(None, Frame("main", "/srv/app/main.py", 1), 0), 0)]
        while len(nodes) < NODES:
            parent, depth = rng.choice(nodes)
            if depth < 59:
                frame = Frame(
                    f"function_{rng.randrange(5000)}", f"/srv/app/m{depth}.py", len(nodes)
                )
                nodes.append((writer.stacks.child(parent, frame, depth + 1), depth + 1))
        chosen = np.random.default_rng(1).integers(0, NODES, SAMPLES)
        ids = np.array([node for node, _ in nodes])
        writer.append(
            "samples",
            {
                "ts_ns": [1_700_000_000_000_000_000 + 300_000 * i for i in range(SAMPLES)],
                "duration_ns": [300_000] * SAMPLES,
                "count": [1] * SAMPLES,
                "tid": [1] * SAMPLES,
                "stack_id": ids[chosen].tolist(),
                "state": ["running"] * SAMPLES,
            },
        )
    return NODES


def rows() -> list[Row]:
    """Open the page once; zoom in and out several times."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return [_not_judged("playwright is not installed")]
    if not Path("/usr/bin/chromium").exists():
        return [_not_judged("Chromium is not installed")]
    from bench.spans import report

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        capture, page_file = str(Path(folder) / "page.perfkit"), Path(folder) / "page.html"
        isolated(generate, capture)
        isolated(report, capture, str(page_file))
        chromium = driver.chromium.launch(executable_path="/usr/bin/chromium", args=[*_FLAGS])
        page = chromium.new_page(viewport={"width": 1400, "height": 900})
        page.goto(page_file.as_uri())
        page.wait_for_selector("html[data-perfkit=ready]", state="attached", timeout=120_000)
        page.locator("#flame_code").scroll_into_view_if_needed()
        page.wait_for_function(f"({_FIRST})() !== undefined", timeout=120_000)
        first_ms = float(page.evaluate(_FIRST))
        zooms = [page.evaluate(_PAINTED, 1 if turn % 2 else 0) for turn in range(ZOOMS + 1)][1:]
        chromium.close()
    zoom_ms = statistics.median(zooms)
    return [
        Row(
            "page of 100,000 nodes: first flame graph",
            f"{first_ms:.0f} ms after opening",
            "the limit of the design",
            f"{first_ms / 1000:.2f}×",
            "< 1 s",
            first_ms < 1000,
        ),
        Row(
            "page of 100,000 nodes: zoom",
            f"{zoom_ms:.0f} ms until painted",
            "the limit of the design",
            f"{zoom_ms / 200:.2f}×",
            "< 200 ms",
            zoom_ms < 200,
        ),
    ]


def _not_judged(why: str) -> Row:
    return Row("page of 100,000 nodes", "–", why, "–", "< 1 s, zoom < 200 ms", None)
