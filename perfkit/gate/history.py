"""The history: a folder, or a prefix in object storage, with one small Parquet file a run.

A file's name holds the run's time, its capture's id and a hash of what is in it, and no file is
ever written again. So two jobs can add at once, and copies of the folder (a branch, an artifact
store, object storage) merge by putting their files together. DuckDB and pandas read it without
perfkit.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from perfkit import __version__
from perfkit.analysis.session import Tables
from perfkit.errors import CaptureError, UsageError
from perfkit.gate import shelf
from perfkit.gate.figures import SCHEMA as FIGURES
from perfkit.gate.result import Source
from perfkit.gate.runs import Run
from perfkit.remote import url_of

VERSION = "1"
_VERSION_KEY = "perfkit.history_version"

_OF_RUN: dict[str, pl.DataType] = {
    "run": pl.String(),
    "started_ns": pl.Int64(),
    "commit": pl.String(),
    "branch": pl.String(),
    "labels": pl.List(pl.String()),
    "host": pl.String(),
    "cores": pl.Int64(),
    "sampling": pl.String(),
    "perfkit_version": pl.String(),
}
SCHEMA = {**_OF_RUN, **FIGURES}

_COMMITS = ("GITHUB_SHA", "CI_COMMIT_SHA", "GIT_COMMIT", "BUILD_SOURCEVERSION")
_BRANCHES = (
    *("GITHUB_HEAD_REF", "GITHUB_REF_NAME", "CI_COMMIT_REF_NAME", "BRANCH_NAME", "GIT_BRANCH"),
    "BUILD_SOURCEBRANCHNAME",
)
"""Variables of GitHub, GitLab, Jenkins and Azure; the first that is set counts."""


class Added(NamedTuple):
    """The file of a run, and whether it was there before."""

    place: str
    known: bool


def origin(
    tables: Tables, environment: Mapping[str, str] = os.environ
) -> tuple[str | None, str | None]:
    """Return commit and branch: as the CI system says, else the capture, else git here."""
    commit, branch = (
        next((environment[name] for name in names if environment.get(name)), None)
        for names in (_COMMITS, _BRANCHES)
    )
    head = _git("rev-parse", "--abbrev-ref", "HEAD")
    return (
        commit or tables.capture.info.git_commit or _git("rev-parse", "HEAD"),
        branch or (head if head != "HEAD" else None),
    )


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],  # noqa: S607 - the user's own git
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def add(
    folder: Path,
    tables: Tables,
    commit: str | None,
    branch: str | None,
    labels: Iterable[str] = (),
) -> Added:
    """Write the figures of a capture into the history. Raises UsageError when it has no request."""
    run = Run.of(tables, str(tables.capture.path))
    figures = run.figures.sort("kind", "service", "name", "measure")
    if figures.is_empty():
        raise UsageError(
            f"{run.source.name}: no requests and no resources, so there is nothing to keep",
            hint="look at what there is with `perfkit show`",
        )
    start = tables.frame("facts")["start_ns"][0] or tables.capture.info.created_ns
    about: dict[str, Any] = {
        "run": run.source.id,
        "started_ns": start,
        "commit": commit,
        "branch": branch,
        "labels": sorted(set(labels)),
        "host": run.host,
        "cores": run.cores,
        "sampling": run.sampling,
        "perfkit_version": __version__,
    }
    content = json.dumps([about, figures.rows()], sort_keys=True).encode()
    digest = blake2b(content, digest_size=5).hexdigest()
    moment = dt.datetime.fromtimestamp(start / 1e9, dt.UTC)
    name = f"{moment:%Y%m%dT%H%M%SZ}-{run.source.id}-{digest}.parquet"
    if url_of(folder) is None:
        folder.mkdir(parents=True, exist_ok=True)
    there = [place for place in shelf.places(folder, SCHEMA) if f"-{run.source.id}-" in place]
    known = [place for place in there if place.endswith(f"/{name}")]
    if known:
        return Added(known[0], True)
    if there:
        raise UsageError(
            f"{run.source.name} is in the history already, with other labels: {there[0]}",
            hint="remove that file first to add it anew",
        )
    row = pl.DataFrame([about], schema=_OF_RUN)
    frame = row.join(figures, how="cross").select(list(SCHEMA))
    return Added(shelf.put(folder, name, frame, {_VERSION_KEY: VERSION}), False)


def load(folder: Path) -> list[Run]:
    """Return all runs of a history, the oldest first; a run that is there twice counts once."""
    runs = {run.source.id: run for run in map(_read, shelf.places(folder, SCHEMA))}
    return sorted(runs.values(), key=lambda run: (run.source.started_ns or 0, run.source.id))


def _read(place: str) -> Run:
    try:
        version = pl.read_parquet_metadata(place).get(_VERSION_KEY)
        if version != VERSION:
            raise CaptureError(
                f"{place}: history version {version}, this perfkit reads {VERSION}",
                hint="is it a file of a history? read it with the perfkit that wrote it",
            )
        frame = pl.read_parquet(place).select(
            pl.col(name).cast(dtype) for name, dtype in SCHEMA.items()
        )
        row = frame.select(list(_OF_RUN)).row(0, named=True)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise CaptureError(
            f"{place}: damaged ({str(error).splitlines()[0]})",
            hint="move this file away; the rest of the history stays readable",
        ) from error
    return Run(
        Source(
            place.rpartition("/")[2], row["run"], row["commit"], row["branch"], row["started_ns"]
        ),
        row["host"] or "",
        row["cores"],
        row["sampling"],
        tuple(row["labels"] or ()),
        frame.select(list(FIGURES)),
    )


def latest(
    runs: Sequence[Run], like: Sequence[Run], *, last: int, branch: str | None = None
) -> list[Run]:
    """Return the last runs that can be compared: same sampling and cores, and none of `like`.

    Raises UsageError when there is none.
    """
    own = {run.source.id for run in like}
    recorded = {(run.sampling, run.cores) for run in like}
    others = [run for run in runs if run.source.id not in own]
    on_branch = [run for run in others if branch is None or run.source.branch == branch]
    fit = [run for run in on_branch if (run.sampling, run.cores) in recorded]
    if not fit:
        where = f" of branch {branch}" if branch else ""
        raise UsageError(
            f"the history has no run{where} to compare with: {len(others)} in all, "
            f"{len(on_branch)}{where}, none of them with the same sampling and number of cores",
            hint="add runs of the main branch: perfkit history add CAPTURE FOLDER",
        )
    return fit[-last:]
