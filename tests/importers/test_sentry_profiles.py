"""Profiles in Sentry's envelopes, as sentry-sdk 2.75.0 wrote the samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perfkit.errors import InputError
from tests.importers.memory import imported

SAMPLES = Path(__file__).resolve().parent / "samples"


def item(name: str) -> dict[str, Any]:
    """Return the profile of a sample."""
    lines = (SAMPLES / name).read_text().splitlines()
    found: dict[str, Any] = next(json.loads(line) for line in lines if '"frames"' in line)
    return found


@pytest.mark.parametrize("name", ["sentry-profile.envelope", "sentry-profile-chunk.envelope"])
def test_profiles_of_the_sdk_become_samples_in_the_time_of_their_transaction(name: str) -> None:
    writer = imported(SAMPLES / name)
    profile = item(name)["profile"]
    samples, spans = writer.table("samples"), writer.table("spans")
    assert samples.height == len(profile["samples"])
    assert set(samples["thread_name"]) == {
        thread["name"] for thread in profile["thread_metadata"].values()
    }
    assert spans.height == 2
    root = spans.filter(name="GET /x")
    start, length = root["start_ns"].item(), root["duration_ns"].item()
    main = samples.filter(thread_name="MainThread").sort("ts_ns")
    assert start <= main["ts_ns"].min() < main["ts_ns"].max() <= start + length + 10**8
    ends = (main["ts_ns"] + main["duration_ns"]).to_list()
    assert ends[:-1] == main["ts_ns"].to_list()[1:]
    assert ends[-1] is None
    names = set(writer.table("frames")["function"])
    assert names == {frame["function"] for frame in profile["frames"]}
    # The outermost frame is nobody's callee.
    table = writer.table("stacks")
    parents = table.filter(table["parent_id"].is_null())["frame_id"]
    outermost = {profile["frames"][stack[-1]]["function"] for stack in profile["stacks"]}
    table = writer.table("frames")
    found = set(table.filter(table["frame_id"].is_in(parents.implode()))["function"])
    assert found == outermost


def test_damaged_profiles_and_other_items_are_said(tmp_path: Path) -> None:
    content = item("sentry-profile.envelope")
    content["profile"]["samples"][0]["stack_id"] = 99
    content["profile"]["samples"][1]["elapsed_since_start_ns"] = "soon"
    content["profile"]["stacks"][0] = [77]
    lines = [{"event_id": "1"}, {"type": "profile", "length": 1}, content]
    lines += [{"type": "session", "length": 2}, {"sid": "1", "init": True}]
    path = tmp_path / "input"
    path.write_text("\n".join(map(json.dumps, lines)))
    writer = imported(path)
    lost = writer.lost()
    stack_0 = sum(one["stack_id"] == 0 for one in content["profile"]["samples"])
    assert lost["it is a session, which perfkit does not read"] == 1
    refused = lost["sample without a known stack or a plausible time"]
    assert refused == 2 + stack_0
    assert writer.info.rows["samples"] == len(content["profile"]["samples"]) - refused
    content["profile"]["samples"] = [{"stack_id": "x"}]
    path.write_text("\n".join(map(json.dumps, lines[:3])))
    with pytest.raises(InputError, match="not a Sentry profile"):
        imported(path)


@pytest.mark.parametrize("thread", [None, "main", "-3", "0x", "1" * 5000, 2**70, ""])
def test_a_thread_without_a_plausible_number_is_none(tmp_path: Path, thread: object) -> None:
    content = item("sentry-profile.envelope")
    for sample in content["profile"]["samples"]:
        sample["thread_id"] = thread
    path = tmp_path / "input"
    path.write_text("\n".join(map(json.dumps, [{"event_id": "1"}, {"type": "profile"}, content])))
    samples = imported(path).table("samples")
    assert samples.height == len(content["profile"]["samples"])
    assert samples["tid"].null_count() == samples.height
