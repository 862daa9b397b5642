"""`perfkit compare`: what changed between two sides, and what made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perfkit.cli.data import jsonable
from perfkit.cli.options import (
    CapturePath,
    MomentOrHour,
    filter_options,
    make_filters,
    moment_of,
    open_tables,
)
from perfkit.errors import UsageError

if TYPE_CHECKING:
    import datetime as dt

    from perfkit.analysis.comparison.compare import Comparison
    from perfkit.analysis.comparison.contrast import Contrast
    from perfkit.analysis.filters import Filters

_VERSUS = "vs"
_MOST_IN_JSON = 500
Row = dict[str, Any]


@click.command(epilog="Example: perfkit compare main-*.perfkit vs change-*.perfkit --json")
@click.argument(
    "captures",
    nargs=-1,
    required=True,
    metavar="CAPTURE [CAPTURE | ... vs ...]",
    shell_complete=CapturePath().shell_complete,
)
@click.option(
    "--at", type=MomentOrHour(), help="Before this time against from it on: 10:04:30 (UTC)."
)
@click.option("--endpoints", nargs=2, metavar="A B", help="One endpoint against another.")
@click.option(
    "--between", nargs=2, metavar="SQL SQL", help="Requests by two predicates, as in --where."
)
@filter_options
@click.option("--json", "as_json", is_flag=True, help="Write everything as JSON.")
def command(
    captures: tuple[str, ...],
    at: int | dt.time | None,
    endpoints: tuple[str, str] | None,
    between: tuple[str, str] | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """Say what changed between two sides, how sure that is, and which component made it.

    \b
    perfkit compare A                 the slowest requests of A against its typical ones
    perfkit compare A --at 10:04:30   the same capture before and after a moment
    perfkit compare A B               capture A against capture B
    perfkit compare A1 A2 vs B1 B2    several runs a side: the only sure way

    A difference is tested over runs. With one capture a side, blocks of its time stand in for
    runs: they share that capture's luck, so the claim is weaker, and the output says so.
    """
    from perfkit.analysis.comparison.compare import compare
    from perfkit.cli import compare_text

    choices = {"--at": at, "--endpoints": endpoints, "--between": between}
    contrast = _contrast(captures, choices, make_filters(filters))
    comparison = compare(contrast)
    if as_json:
        click.echo(json.dumps(_as_data(comparison), indent=1, ensure_ascii=False))
        return
    compare_text.show(comparison)


def _contrast(captures: tuple[str, ...], choices: Row, filters: Filters) -> Contrast:
    from perfkit.analysis.comparison import contrast

    before, after = _sides(captures)
    chosen = [name for name, value in choices.items() if value is not None]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} ask for different comparisons")
    if chosen and after:
        raise UsageError(
            f"{chosen[0]} compares requests of one capture", hint="give only one capture"
        )
    if after:
        return contrast.of_tables(
            [open_tables(path, filters) for path in before],
            [open_tables(path, filters) for path in after],
        )
    (tables,) = (open_tables(path, filters) for path in before)
    if choices["--at"] is not None:
        begun_ns = tables.frame("facts")["start_ns"].item() or 0
        return contrast.of_moment(tables, moment_of(choices["--at"], begun_ns))
    if choices["--endpoints"]:
        return contrast.of_endpoints(tables, choices["--endpoints"])
    if choices["--between"]:
        return contrast.of_predicates(tables, choices["--between"])
    return contrast.of_tail(tables)


def _sides(captures: tuple[str, ...]) -> tuple[list[Path], list[Path]]:
    """Return the captures of the one side and of the other; of the other none for a single one."""
    if _VERSUS in captures:
        place = captures.index(_VERSUS)
        before, after = captures[:place], captures[place + 1 :]
        if not before or not after or _VERSUS in after:
            raise UsageError(f"write captures on both sides of one {_VERSUS!r}")
    elif len(captures) <= 2:
        before, after = captures[:1], captures[1:]
    else:
        raise UsageError(
            f"{len(captures)} captures: which are before, which after?",
            hint="perfkit compare A1 A2 A3 vs B1 B2 B3",
        )
    return [Path(path) for path in before], [Path(path) for path in after]


def _as_data(comparison: Comparison) -> Row:
    from perfkit.analysis.comparison import words
    from perfkit.cli import text

    contrast = comparison.contrast
    data = {
        "before": contrast.names[0],
        "after": contrast.names[1],
        "about": contrast.about,
        "unit": contrast.unit,
        "runs": [int((contrast.side_of_run == side).sum()) for side in (0, 1)],
        "notes": list(contrast.notes),
        "answer": [text.plain(line) for line in words.answer(comparison)],
        "causes": comparison.causes.ranking.to_dicts(),
        "evidence": comparison.causes.evidence.to_dicts(),
        "slow_traits": None if comparison.traits is None else comparison.traits.to_dicts(),
        "differences": comparison.differences.to_dicts(),
        "request_paths": comparison.request_paths.head(_MOST_IN_JSON).to_dicts(),
        "code_paths": comparison.code_paths.head(_MOST_IN_JSON).to_dicts(),
    }
    result = jsonable(data)
    assert isinstance(result, dict)
    return result
