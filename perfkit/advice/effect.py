"""What a recommendation brought: the requests concerned, before and after it was done.

Requests are compared endpoint by endpoint and tool by tool, weighed as they came before, so that a
different mix of requests is not taken for an effect. The unit of the comparison is a block of time:
requests near one another are alike, and each for itself would promise far too narrow an interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import polars as pl

from perfkit.advice.entry import Before, Entry, Measured, Stratum, Verdict
from perfkit.analysis.session import Tables
from perfkit.analysis.statistics.student import critical
from perfkit.rules.model import Finding, Outcome

BLOCKS = 20
"""Blocks of time that a capture is cut into; ours: as in `perfkit compare` within one capture."""

_FEWEST_BLOCKS = 5
_FEWEST_REQUESTS = 5
_MOST_STRATA = 10
_LEVEL = 0.05
_READ = ("start_ns", "endpoint", "tool", "duration_ns", "adjusted_count")


def before(finding: Finding, tables: Tables) -> Before:
    """Return how long the requests took that a finding is about, in this capture."""
    return Before(
        tables.capture.info.id, begun(tables), _strata(_concerned(tables, *_scope(finding)))
    )


def predicted(finding: Finding, tables: Tables) -> tuple[int, int] | None:
    """Return what each of these requests would save at least and at most; None without a claim."""
    requests = float(_concerned(tables, *_scope(finding))["adjusted_count"].sum())
    if finding.impact_high_ratio is None or not requests:
        return None
    each_ns = float(tables.frame("facts")["request_ns"].sum() or 0) / requests
    return (
        round((finding.impact_low_ratio or 0.0) * each_ns),
        round(finding.impact_high_ratio * each_ns),
    )


def _scope(finding: Finding) -> tuple[Sequence[str], Sequence[str]]:
    return finding.scope.get("endpoints", []), finding.scope.get("tools", [])


def measure(entry: Entry, tables: Tables, outcomes: Mapping[str, Outcome]) -> Measured:
    """Say what came of a recommendation that was done, in a capture made afterwards."""
    info = tables.capture.info
    outcome = outcomes.get(entry.rule)
    found = (
        [one for one in outcome.findings if one.fingerprint == entry.fingerprint] if outcome else []
    )
    verdict: Verdict
    if found and found[0].severity in ("high", "medium"):
        verdict, why = "back", found[0].message
    elif outcome is None or outcome.state not in ("found", "quiet"):
        verdict, why = "not measured", outcome.reason if outcome else f"no rule {entry.rule} ran"
    else:
        verdict, why = "gone", ""
    saved = _saved(entry, tables) if entry.before is not None else None
    if saved is None:
        known = entry.before
        bound = entry.endpoints or entry.tools
        if verdict == "gone" and bound and known is not None and known.strata:
            # A rule is quiet about requests that did not come: nothing is known of them.
            verdict, why = "not measured", _NOT_THERE
        return Measured(info.id, begun(tables), verdict, why=why or _WHY_NOT)
    mean, low, high, requests = saved
    if verdict == "gone":
        verdict = _judged(entry.predicted_ns, low, high)
    return Measured(
        info.id,
        begun(tables),
        verdict,
        saved_ns=round(mean),
        saved_low_ns=round(low) if math.isfinite(low) else None,
        saved_high_ns=round(high) if math.isfinite(high) else None,
        requests=requests,
        why=why,
    )


_NOT_THERE = "too few of the requests that it is about are in this capture"
_WHY_NOT = "too few requests of the same endpoints on both sides to measure a saving"


def _judged(predicted_ns: tuple[int, int] | None, low: float, high: float) -> Verdict:
    if predicted_ns is None or not math.isfinite(low):
        return "gone"
    if high < 0:
        return "slower"
    if low <= 0:
        return "no evidence"
    return "confirmed" if high >= predicted_ns[0] else "smaller"


def _saved(entry: Entry, tables: Tables) -> tuple[float, float, float, int] | None:
    """Return the mean saving on a request, its 95 % interval, and how many requests came after.

    The interval is that of Welch, with Satterthwaite's degrees of freedom over all parts.
    """
    assert entry.before is not None
    concerned = _concerned(tables, entry.endpoints, entry.tools)
    after = {(one.endpoint, one.tool): one for one in _strata(concerned)}
    pairs = [
        (old, after[old.endpoint, old.tool])
        for old in entry.before.strata
        if (old.endpoint, old.tool) in after
    ]
    # Where some can be judged, those that cannot would only hide how sure the others are.
    pairs = [pair for pair in pairs if None not in (one.error_ns for one in pair)] or pairs
    weight = sum(old.requests for old, _ in pairs)
    if not weight:
        return None
    mean = variance = spread = 0.0
    for old, new in pairs:
        share = old.requests / weight
        mean += share * (old.mean_ns - new.mean_ns)
        for side in (old, new):
            part = math.nan if side.error_ns is None else (share * side.error_ns) ** 2
            variance += part
            spread += part**2 / max(1, side.blocks - 1)
    requests = sum(new.requests for _, new in pairs)
    if not variance > 0:
        return mean, math.nan, math.nan, requests
    reach = critical(_LEVEL, variance**2 / spread) * math.sqrt(variance)
    return mean, mean - reach, mean + reach, requests


def _concerned(tables: Tables, endpoints: Sequence[str], tools: Sequence[str]) -> pl.DataFrame:
    """Return the entries of these endpoints and tools; all, where none of them is an entry's."""
    # All columns take several GiB of a large capture.
    entries = tables["requests"].filter(pl.col("entry"), ~pl.col("open")).select(_READ)
    chosen = entries
    if tools:
        chosen = chosen.filter(pl.col("tool").is_in(list(tools)))
    if endpoints:
        chosen = chosen.filter(pl.col("endpoint").is_in(list(endpoints)))
    frame = chosen.collect()
    # It may be about something inside the requests: a service behind, or a pool.
    return entries.collect() if frame.is_empty() else frame


def _strata(entries: pl.DataFrame) -> tuple[Stratum, ...]:
    """Return the mean of each endpoint and tool, those that took most time first."""
    if entries.is_empty():
        return ()
    start, end = entries["start_ns"].min(), entries["start_ns"].max()
    assert isinstance(start, int)
    assert isinstance(end, int)
    width = max(1, -(-(end - start + 1) // BLOCKS))
    weight = pl.col("adjusted_count")
    blocks = entries.group_by(
        pl.col("endpoint", "tool").fill_null(""), block=(pl.col("start_ns") - start) // width
    ).agg(requests=weight.sum(), total_ns=(pl.col("duration_ns") * weight).sum())
    mean = pl.col("total_ns").sum() / pl.col("requests").sum()
    # Standard error of a ratio over clusters: Cochran, Sampling Techniques, 3rd ed., section 6.4.
    residual = pl.col("total_ns") - pl.col("requests") * mean
    squared = (residual**2).sum() * pl.len() / (pl.len() - 1)
    summed = (
        blocks.group_by("endpoint", "tool")
        .agg(
            error_ns=squared.sqrt() / pl.col("requests").sum(),
            mean_ns=mean,
            blocks=pl.len(),
            requests=pl.col("requests").sum(),
        )
        .filter(pl.col("requests") >= _FEWEST_REQUESTS)
        .with_columns(total=pl.col("requests") * pl.col("mean_ns"))
        .sort("total", "endpoint", "tool", descending=[True, False, False])
        .head(_MOST_STRATA)
    )
    return tuple(
        Stratum(
            endpoint=row["endpoint"],
            tool=row["tool"],
            requests=round(row["requests"]),
            mean_ns=round(row["mean_ns"]),
            error_ns=round(row["error_ns"]) if row["blocks"] >= _FEWEST_BLOCKS else None,
            blocks=row["blocks"],
        )
        for row in summed.iter_rows(named=True)
    )


def begun(tables: Tables) -> int:
    """Return when the capture's data begins; its own creation when it holds none."""
    begun: int | None = tables.frame("facts")["start_ns"].item()
    return tables.capture.info.created_ns if begun is None else begun
