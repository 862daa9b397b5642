"""Options that several commands share, with the same names everywhere."""

from __future__ import annotations

import datetime as dt
import glob
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from perfkit.cli.progress import Progress
from perfkit.errors import UsageError
from perfkit.units import parse_duration, parse_size

if TYPE_CHECKING:
    from perfkit.analysis.filters import Filters
    from perfkit.analysis.session import Tables
    from perfkit.redaction import Rules
    from perfkit.rules.choose import Choice
    from perfkit.rules.model import Followed, Outcome

_Function = TypeVar("_Function", bound=Callable[..., Any])


class CapturePath(click.Path):
    """Where a capture is. A shell completes the names of captures."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the captures that begin so; else have the shell complete files."""
        folder, name = os.path.split(incomplete)
        captures = sorted(Path(folder or ".").glob(f"{glob.escape(name)}*.perfkit"))
        found = [CompletionItem(os.path.join(folder, one.name)) for one in captures]
        return found or super().shell_complete(ctx, param, incomplete)


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A length of time, `30s` or `1.5m`, as integer nanoseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return nanoseconds, or fail with a usage error."""
        if isinstance(value, int):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Percentage(click.ParamType):  # type: ignore[type-arg]
    """A share, `2%` or `0.02`, as a float of 0 to 1."""

    name = "percentage"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the share, or fail with a usage error."""
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 < share <= 1:
            self.fail(f"{value!r} is not a share; write 2% or 0.02", param, ctx)
        return share


class Size(click.ParamType):  # type: ignore[type-arg]
    """A size, `500MiB` or `2GiB`, as integer bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return bytes, or fail with a usage error."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Moment(click.ParamType):  # type: ignore[type-arg]
    """A point in time as Unix ns: ISO 8601 (UTC unless it says otherwise) or Unix seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return Unix nanoseconds, or fail with a usage error."""
        if isinstance(value, int):
            return value
        try:
            return round(float(value) * 1e9)
        except (ValueError, OverflowError):
            pass
        try:
            moment = dt.datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a time; write 2026-11-23T20:01:02 or Unix seconds")
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=dt.UTC)
        delta = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
        return (delta.days * 86_400 + delta.seconds) * 10**9 + delta.microseconds * 1000


class MomentOrHour(click.ParamType):  # type: ignore[type-arg]
    """A point in time, or a time of day (UTC) that only means one in a capture."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | dt.time:
        """Return Unix nanoseconds or the time of day, or fail with a usage error."""
        if isinstance(value, str) and re.fullmatch(r"\d\d?:\d\d(:\d\d(\.\d+)?)?", value):
            try:
                return dt.time.fromisoformat(value.zfill(len(value) + (value[1] == ":")))
            except ValueError:
                self.fail(f"{value!r} is no time of day; write 10:04:30")
        return Moment().convert(value, param, ctx)


def moment_of(value: int | dt.time, begun_ns: int) -> int:
    """Return the Unix ns of a moment; a time of day is the first one from `begun_ns` on."""
    if isinstance(value, int):
        return value
    begun = dt.datetime.fromtimestamp(begun_ns // 10**9, dt.UTC)
    moment = dt.datetime.combine(begun.date(), value, dt.UTC)
    days = int(moment < begun)
    return Moment().convert((moment + dt.timedelta(days)).isoformat(), None, None)


def filter_options(function: _Function) -> _Function:
    """Add the filters that every analysing command has; pass them through `make_filters`."""
    options = (
        click.option("--service", help="Only requests served by this service."),
        click.option("--endpoint", help="Only this endpoint: 'POST /tools/invoke' or the path."),
        click.option("--tool", help="Only requests that invoke this tool."),
        click.option("--since", "since_ns", type=Moment(), help="Only from this time on."),
        click.option("--until", "until_ns", type=Moment(), help="Only before this time."),
        click.option(
            "--min-duration", "min_duration_ns", type=Duration(), help="Only slower ones: 500ms."
        ),
        click.option("--status", type=click.Choice(["ok", "error"]), help="Only ok or failed."),
        click.option("--where", help="Only requests for which this SQL predicate holds."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def make_filters(values: dict[str, Any]) -> Filters:
    """Take the values of `filter_options` out of a command's arguments."""
    from perfkit.analysis.filters import Filters

    names = Filters.__dataclass_fields__
    return Filters(**{name: values.pop(name) for name in list(values) if name in names})


ledger_option = click.option(
    "--ledger",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The status of recommendations.  [default: perfkit-advice.yaml, here or above]",
)


RULE_OPTIONS = ("rules", "group", "silence", "tune")
"""Options of `rule_options`: perfkit.yaml may say them once, for all commands, under `rules`."""


folders_option = click.option(
    "--rules",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    multiple=True,
    help="Folder of rules of your own, beside the shipped ones; same id: yours.",
)


def rule_options(function: _Function) -> _Function:
    """Add the options that say which rules run; pass them through `make_choice`."""
    options = (
        folders_option,
        click.option("--group", multiple=True, help="Only rules of this group: database, say."),
        click.option("--silence", metavar="ID", multiple=True, help="Not this rule."),
        click.option(
            "--tune",
            metavar="ID.PARAM=VALUE",
            multiple=True,
            help="Another limit, db.slow-query.slow=200ms, or only some endpoints, "
            "db.slow-query.endpoints=/search*.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def make_choice(values: dict[str, Any]) -> Choice:
    """Take the values of `rule_options` out of a command's arguments."""
    from perfkit.rules.choose import Choice

    folders, groups, silence, tune = (tuple(values.pop(name)) for name in RULE_OPTIONS)
    return Choice(folders, groups, silence, tune)


def decided(
    outcomes: list[Outcome], tables: Tables, ledger: Path | None
) -> tuple[list[Outcome], list[Followed]]:
    """Return the outcomes with what people decided, and what came of what they did before."""
    from perfkit.advice import decide
    from perfkit.advice.ledger import find, load

    entries = load(ledger if ledger is not None else find(Path.cwd()))
    known = decide.applied(outcomes, entries, tables, dt.datetime.now(dt.UTC).date())
    return known, decide.followed(entries, outcomes, tables)


def redact_options(command: _Function) -> _Function:
    """Add the options that hide what must not leave the company."""
    for option in reversed(
        (
            click.option(
                "--redact",
                is_flag=True,
                help="Replace attribute values, query literals, hosts and paths by pseudonyms.",
            ),
            click.option(
                "--redact-keep",
                metavar="ATTRIBUTE",
                multiple=True,
                help="With --redact: values of this attribute stay; * for anything.",
            ),
            click.option(
                "--redact-pattern",
                metavar="REGEX",
                multiple=True,
                help="With --redact: what this finds in any text goes too.",
            ),
        )
    ):
        command = option(command)
    return command


def make_redaction(options: dict[str, Any]) -> Rules | None:
    """Take the redaction options out of a command's; null when nothing is to be hidden."""
    wanted = options.pop("redact")
    keep, patterns = options.pop("redact_keep"), options.pop("redact_pattern")
    if not wanted:
        if keep or patterns:
            raise UsageError("--redact-keep and --redact-pattern need --redact")
        return None
    from perfkit.redaction import Rules

    return Rules(tuple(keep), tuple(patterns))


engine_option = click.option(
    "--engine",
    default="auto",
    show_default=True,
    metavar="ENGINE",
    help="How to analyse: in one piece (whole); shard by shard in less memory (shards), in several "
    "processes (processes), on a local Dask cluster (dask) or another (dask://HOST:PORT). auto "
    "takes shards beyond 4 M spans.",
)


class _Shards:
    """Shows how many shards are done."""

    def __init__(self) -> None:
        self._progress = Progress()

    def __call__(self, done: int, count: int) -> None:
        """Show it; the line is gone when all are done."""
        self._progress.show(f"{done} of {count} shards", force=True)
        if done == count:
            self._progress.clear()


def open_tables(
    path: Path,
    filters: Filters,
    engine: str = "auto",
    redaction: Rules | None = None,
    key: bytes | None = None,
    *,
    live: bool = False,
) -> Tables:
    """Open a capture for analysis, redacted if asked; says so when it is analysed in shards.

    With `live`, what a recording that goes on has journaled so far is in it too. Captures that are
    to be compared are redacted with the same key.
    """
    from perfkit.analysis.sharded import ShardedTables
    from perfkit.analysis.sharded import open_tables as opened
    from perfkit.capture import Capture

    capture = Capture.open(path, live=live)
    if redaction is not None:
        from perfkit.redaction import redacted

        if engine not in ("auto", "whole"):
            raise UsageError(
                f"--redact works in one piece only, not with --engine {engine}",
                hint="leave --engine out",
            )
        capture, engine = redacted(capture, redaction, key), "whole"
    tables = opened(capture, filters, engine)
    if isinstance(tables, ShardedTables):
        click.echo(f"analysing in {tables.described}", err=True)
        click.get_current_context().call_on_close(tables.close)
        tables.tell(_Shards(), lambda text: click.echo(text, err=True))
    return tables
