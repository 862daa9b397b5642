"""Every sample against what it must become, row by row, in `golden/`.

After a change that is meant: `PERFKIT_GOLDEN=write pytest tests/importers/test_golden.py`, and look
at the difference.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import polars as pl
import pytest

from perfkit.ids import span_hex, trace_hex
from tests.importers.memory import MemoryWriter, imported

GOLDEN = Path(__file__).resolve().parent / "golden"
SAMPLES = Path(__file__).resolve().parent / "samples"
STARTED_NS = 1_795_416_000_000_000_000
# The others have tests of their own.
_OWN_TESTS = ("gateway", "jaeger", "otlp", "psutil.jsonl", "pyspy", "request")
NAMES = sorted(p.name for p in SAMPLES.iterdir() if not p.name.startswith(_OWN_TESTS))


def described(writer: MemoryWriter) -> str:
    """Write all tables as text: stacks as paths, ids as hexadecimal, nulls left out."""
    paths: dict[int, str] = {}
    frames = {row["frame_id"]: row for row in writer.table("frames").to_dicts()}
    for row in writer.table("stacks").sort("depth").to_dicts():
        frame = frames[row["frame_id"]]
        place = f" ({frame['file']}:{frame['line']})" if frame["file"] else ""
        above = f"{paths[row['parent_id']]}; " if row["parent_id"] is not None else ""
        paths[row["stack_id"]] = f"{above}{frame['function']}{place}"
    lines = []
    for name in ("spans", "span_events", "span_links", "samples", "metrics"):
        for row in writer.table(name).to_dicts():
            if row.get("trace_lo") is not None:
                row["trace"] = trace_hex(row.pop("trace_hi"), row.pop("trace_lo"))
            for key in ("span_id", "parent_id", "linked_span_id"):
                if row.get(key) is not None:
                    row[key] = span_hex(row[key])
            if "stack_id" in row:
                row["stack"] = paths[row.pop("stack_id")]
            kept = {key: value for key, value in row.items() if value is not None}
            lines.append(f"{name} {json.dumps(kept, sort_keys=True, ensure_ascii=False)}")
    lines += [f"lost {loss.count} {loss.what}: {loss.why}" for loss in writer.info.lost]
    lines += [f"note {note}" for note in writer.info.notes]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", NAMES)
def test_golden(name: str) -> None:
    writer = imported(SAMPLES / name, started_at_ns=STARTED_NS)
    found = described(writer)
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("PERFKIT_GOLDEN") == "write":
        path.write_text(found, encoding="utf-8")
    assert path.is_file(), "no golden file: see the top of this module"
    assert found == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_importing_twice_changes_nothing(name: str, tmp_path: Path) -> None:
    copy = tmp_path / name
    copy.write_bytes((SAMPLES / name).read_bytes())
    once = imported(SAMPLES / name, started_at_ns=STARTED_NS)
    again = imported(SAMPLES / name, started_at_ns=STARTED_NS)
    twice = imported(SAMPLES / name, copy, started_at_ns=STARTED_NS)
    assert once.info.rows == twice.info.rows
    for table in once.info.rows:
        assert once.table(table).equals(again.table(table))
        assert once.table(table).equals(twice.table(table))


@pytest.mark.parametrize("name", NAMES)
def test_parents_are_in_the_same_trace_and_around_their_children(name: str) -> None:
    spans = imported(SAMPLES / name, started_at_ns=STARTED_NS).table("spans")
    parents = spans.select(
        "trace_hi", "trace_lo", parent_id="span_id", begin="start_ns",
        end=pl.col("start_ns") + pl.col("duration_ns"),
    )  # fmt: skip
    children = spans.filter(pl.col("parent_id").is_not_null())
    joined = children.join(parents, on=["trace_hi", "trace_lo", "parent_id"], how="inner")
    assert joined.height == children.height
    # To the µs: several formats say their times as floats.
    early = joined.filter(pl.col("start_ns") < pl.col("begin") - 1000)
    late = joined.filter(pl.col("start_ns") + pl.col("duration_ns") > pl.col("end") + 1000)
    assert (early.height, late.height) == (0, 0)
