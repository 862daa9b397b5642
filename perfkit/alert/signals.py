"""What is worth an alert: findings, and requests that became slow or failed for a while."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import polars as pl

from perfkit import units
from perfkit.alert.event import Alert
from perfkit.analysis.session import Tables
from perfkit.masking import mask
from perfkit.rules.evaluate import findings
from perfkit.rules.model import Outcome

SEVERITIES = ("high", "medium", "low")
_SHIFT_SEVERITY = "high"
_NEAR_END_BUCKETS = 2
"""A spike that ended so many buckets before the newest data, or later, may still go on."""
_LONGEST_TEXT = 1000


def active(tables: Tables, outcomes: Iterable[Outcome], at_least: str) -> list[Alert]:
    """Return what is wrong: findings of a severity or a higher one, and shifts of requests.

    While a capture is being recorded, a spike that is over is no longer wrong.
    """
    wanted = SEVERITIES[: SEVERITIES.index(at_least) + 1]
    begin_ns = tables.frame("facts")["start_ns"][0] or tables.capture.info.created_ns
    found = [
        Alert(
            fingerprint=one.fingerprint,
            name="PerfkitFinding",
            severity=one.severity,
            summary=_text(one.title),
            description=_text(f"{one.message} What to do: {one.fix.get('summary', '')}"),
            starts_ns=one.first_seen_ns or begin_ns,
            labels={"rule": one.rule_id, **{name: _text(text) for name, text in one.key.items()}},
        )
        for one in findings(outcomes)
        if one.severity in wanted
    ]
    return found + [_of_shift(row) for row in _shifts(tables)]


def _shifts(tables: Tables) -> list[dict[str, Any]]:
    """Return the shifts of latency and errors upwards, one for each series: the latest."""
    rows = tables.frame("shifts").filter(
        pl.col("kind").is_in(["latency", "errors"]), pl.col("direction") == "up"
    )
    if tables.capture.living:
        newest_ns = tables.frame("facts")["end_ns"][0] or 0
        near = newest_ns - _NEAR_END_BUCKETS * pl.col("bucket_width_ns")
        rows = rows.filter(pl.col("end_ns") >= near)
    # Of all requests together only where no endpoint stands out; of percentiles the highest.
    of_endpoint = rows.filter(pl.col("endpoint").is_not_null())["kind"].unique().implode()
    rows = rows.filter(pl.col("endpoint").is_not_null() | ~pl.col("kind").is_in(of_endpoint))
    latest = rows.sort("measure", "start_ns").unique(
        ["kind", "service", "endpoint"], keep="last", maintain_order=True
    )
    return latest.to_dicts()


def _of_shift(row: dict[str, Any]) -> Alert:
    slow = row["kind"] == "latency"
    where = row["endpoint"] or row["service"] or "all requests"
    write = units.duration if slow else units.number
    what = "slow" if slow else "failing"
    return Alert(
        fingerprint=_hash("shift", row["kind"], row["service"], row["endpoint"]),
        name="PerfkitSlowRequests" if slow else "PerfkitFailingRequests",
        severity=_SHIFT_SEVERITY,
        summary=_text(f"Requests to {where} are {what}"),
        description=_text(
            f"{row['measure']} was {write(row['mean'])} instead of {write(row['expected'])} "
            f"(peak {write(row['peak'])}) for {units.duration(row['duration_ns'])} from "
            f"{units.timestamp(row['start_ns'])}; {units.number(row['requests'])} requests were in "
            "flight meanwhile."
        ),
        starts_ns=row["start_ns"],
        labels={
            name: _text(row[name]) for name in ("service", "endpoint") if row[name] is not None
        },
    )


def _hash(*parts: str | None) -> str:
    text = "\0".join(part or "" for part in parts)
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()


def _text(text: str) -> str:
    """Return text on one line without control characters and secrets, of bounded length."""
    shown = "".join(char if char.isprintable() else " " for char in mask(str(text)))
    line = " ".join(shown.split())
    return line if len(line) <= _LONGEST_TEXT else f"{line[: _LONGEST_TEXT - 1]}…"
