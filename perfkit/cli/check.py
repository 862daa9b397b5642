"""`perfkit check`: the gate of a CI job: budgets, rules, and regressions against a baseline."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perfkit.cli import check_text
from perfkit.cli.files import check_writable, write_whole
from perfkit.cli.options import (
    CapturePath,
    Percentage,
    decided,
    filter_options,
    ledger_option,
    make_choice,
    make_filters,
    open_tables,
    rule_options,
)
from perfkit.cli.progress import Progress
from perfkit.errors import CaptureError, UsageError

if TYPE_CHECKING:
    from perfkit.analysis.filters import Filters
    from perfkit.gate.budgets import Budget
    from perfkit.gate.result import Check, Result
    from perfkit.gate.runs import Run
    from perfkit.rules.choose import Choice
    from perfkit.rules.model import Finding, Severity

_SEVERITIES = ("high", "medium", "low", "info")
_MEASURES = ("p50", "p95", "p99", "mean", "error_ratio", "queries", "cpu", "memory")
_SUMMARY = "GITHUB_STEP_SUMMARY"


class _ManyBaselines(click.Command):
    """A command whose `--baseline` takes all captures up to the next option, as `*` gives them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give each capture after `--baseline` an option of its own."""
        spread: list[str] = []
        of_baseline = False
        for argument in args:
            if argument.startswith("-"):
                of_baseline = argument == "--baseline"
            elif of_baseline and spread[-1] != "--baseline":
                spread.append("--baseline")
            spread.append(argument)
        return super().parse_args(ctx, spread)


@click.command(
    cls=_ManyBaselines,
    epilog="Example: perfkit check run-*.perfkit --baseline main-*.perfkit "
    "--budget 'p95(endpoint=/tools/invoke) < 300ms' --junit gate.xml",
)
@click.argument("captures", nargs=-1, required=True, type=CapturePath())
@click.option(
    "--budget",
    "budget_texts",
    metavar="TEXT",
    multiple=True,
    help="A limit: 'error_ratio < 1%', 'p95(endpoint=/search*) < 300ms', 'queries < 10', "
    "'memory < 1GiB', 'sql(SELECT …) < 5'. See docs/ci.md.",
)
@click.option(
    "--fail-on", type=click.Choice(_SEVERITIES), help="Fail on findings so severe, or worse."
)
@click.option(
    "--only-new", is_flag=True, help="Not on findings that most runs of the baseline have too."
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="CAPTURE...",
    help="Captures to compare with; five of them find what matters.",
)
@click.option(
    "--history",
    type=click.Path(path_type=Path, file_okay=False),
    help="Compare with the latest runs of this folder, see `perfkit history`.",
)
@click.option("--last", type=click.IntRange(2), default=10, show_default=True, help="So many.")
@click.option("--branch", help="Runs of this branch in the history.  [default: all]")
@click.option(
    "--measure",
    type=click.Choice(_MEASURES),
    multiple=True,
    help="Figures to compare; each one more makes all less sure.  [default: p95, error_ratio]",
)
@click.option(
    "--min-effect",
    type=Percentage(),
    default="5%",
    show_default=True,
    help="A smaller change is none, however sure.",
)
@click.option("--fail-on-improvement", is_flag=True, help="So that the baseline gets moved.")
@click.option(
    "--confirm",
    metavar="CMD",
    help="When runs are worse or unstable, run this shell command once for each capture, to record "
    "$PERFKIT_CAPTURE anew, and decide on all of them.",
)
@click.option(
    "--exit-unstable",
    type=click.IntRange(0, 125),
    default=0,
    show_default=True,
    help="Exit status of a gate that is unstable: one that your CI tries again, say.",
)
@click.option("--junit", type=click.Path(path_type=Path), help="Write JUnit XML here.")
@click.option("--sarif", type=click.Path(path_type=Path), help="Write SARIF 2.1.0 here.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write a summary here.")
@click.option("--gitlab", type=click.Path(path_type=Path), help="Write GitLab Code Quality here.")
@click.option("--json", "as_json", is_flag=True, help="Write everything as JSON.")
@filter_options
@rule_options
@ledger_option
@click.pass_context
def command(context: click.Context, /, captures: tuple[Path, ...], **options: Any) -> None:
    """Judge runs by budgets, rules and a baseline; several CAPTUREs are repeated runs of one thing.

    Exit status 3: the gate failed; 2: it asks for what is not there, such as a budget that matches
    nothing. What cannot be told from noise is unstable and no failure. Findings that were dismissed
    with `perfkit advice` do not count. In a GitHub job the summary is written too.
    """
    gate = _gate(captures, options)
    outputs = _outputs(options)
    with Progress() as progress:
        gate.say = lambda text: progress.show(text, force=True)
        result = gate.result()
        if gate.wants_confirmation(result):
            progress.clear()
            gate.confirm()
            result = gate.result()
    code = _exit_code(result, options["exit_unstable"])
    for target, write in outputs:
        write_whole(target, write(result, code))
    _summarise(result)
    _annotate(result)
    if options["as_json"]:
        from perfkit.gate.outputs import data

        click.echo(data.write(result, code).decode(), nl=False)
    else:
        check_text.show(result)
    context.exit(code)


@dataclass
class _Gate:
    """What is asked of the runs, and the runs."""

    runs: list[Run]
    baseline: list[Run]
    budgets: list[Budget]
    fail_on: Severity | None
    only_new: bool
    measures: tuple[str, ...]
    min_effect: float
    fail_on_improvement: bool
    choice: Choice
    ledger: Path | None
    filters: Filters
    command: str | None
    confirmed_by: int = 0
    say: Callable[[str], None] = lambda text: None

    def result(self) -> Result:
        """Judge the runs."""
        from perfkit.gate import judge, regression, runs
        from perfkit.gate.result import Result, masked

        checks: list[Check] = []
        for budget in self.budgets:
            self.say(f"budget {budget.text}")
            checks += judge.checks(budget, [_tables(run) for run in self.runs])
        if self.fail_on is not None:
            checks += self._rules(self.fail_on)
        compared: list[Check] = []
        warnings = runs.weaknesses([*self.baseline, *self.runs])
        if self.baseline:
            self.say("comparing with the baseline")
            runs.refuse_other_endpoints(self.baseline, self.runs)
            warnings = [*runs.warnings(self.baseline, self.runs), *warnings]
            compared = regression.checks(
                [run.figures for run in self.baseline],
                [run.figures for run in self.runs],
                measures=self.measures,
                minimum_effect=self.min_effect,
                fail_on_improvement=self.fail_on_improvement,
            )
            if not compared:
                raise UsageError(
                    "nothing to compare: no endpoint has enough requests on both sides",
                    hint="a p95 needs 20 requests to an endpoint in a run: record for longer",
                )
        checks += compared
        worse = [one for one in compared if one.state == "failed" and (one.change or 0) > 0]
        return Result(
            [masked(one) for one in checks],
            [run.source for run in self.runs],
            [run.source for run in self.baseline],
            warnings,
            self._cause() if worse else (),
            self.confirmed_by,
            sum(one.p is not None for one in compared),
        )

    def _rules(self, worst: Severity) -> list[Check]:
        from perfkit.gate import findings

        self.say("looking for problems")
        outcomes = [self._outcomes(run) for run in self.runs]
        known: set[str] = set()
        if self.only_new:
            known = findings.fingerprints([self._outcomes(run)[1] for run in self.baseline])
        broken = findings.broken(outcomes[0][0])
        return broken + findings.checks([found for _, found in outcomes], worst, known)

    def _outcomes(self, run: Run) -> tuple[list[Any], list[Finding]]:
        from perfkit.rules import evaluate
        from perfkit.rules.choose import choose

        tables = _tables(run)
        outcomes, _ = decided(evaluate.run(choose(self.choice), tables), tables, self.ledger)
        return outcomes, evaluate.findings(outcomes)

    def _cause(self) -> list[str]:
        """Return what made it, in words; only captures tell, a history holds figures alone."""
        before = [run.tables for run in self.baseline if run.tables is not None]
        if not before:
            return []
        from perfkit.analysis.comparison import compare, contrast, words
        from perfkit.cli import text

        self.say("looking for the cause")
        sides = contrast.of_tables(before, [_tables(run) for run in self.runs])
        return [text.plain(line) for line in words.answer(compare.compare(sides))]

    def wants_confirmation(self, result: Result) -> bool:
        """Whether what speaks against the runs may be luck: a comparison or a median, no rule."""
        doubtful = [one for one in result.of("failed", "unstable") if one.kind != "rule"]
        return self.command is not None and bool(doubtful)

    def confirm(self) -> None:
        """Record as many runs again, by the user's command, and take them in."""
        from perfkit.gate.runs import refuse_repeated

        assert self.command is not None
        again = [_new_name(Path(run.source.name)) for run in self.runs]
        for target in again:
            click.echo(f"to confirm, recording {target}: {self.command}", err=True)
            environment = {**os.environ, "PERFKIT_CAPTURE": str(target)}
            # The user's own command, as in a Makefile.
            done = subprocess.run(self.command, shell=True, env=environment, check=False)  # noqa: S602
            if done.returncode or not target.exists():
                raise CaptureError(
                    f"--confirm: {self.command!r} ended with status {done.returncode} and "
                    f"{'wrote' if target.exists() else 'did not write'} {target}",
                    hint='it must record there: perfkit record … -o "$PERFKIT_CAPTURE"',
                )
        self.runs += _open(again, self.filters)
        self.confirmed_by = len(again)
        refuse_repeated([*self.baseline, *self.runs])


def _gate(captures: Sequence[Path], options: dict[str, Any]) -> _Gate:
    from perfkit.gate import budgets
    from perfkit.gate.figures import BY_LABEL
    from perfkit.gate.regression import DEFAULT_MEASURES
    from perfkit.gate.runs import refuse_repeated

    filters = make_filters(options)
    read = [budgets.parse(text) for text in options["budget_texts"]]
    baseline: tuple[Path, ...] = options["baseline"]
    if baseline and options["history"]:
        raise UsageError("--baseline and --history are both given: choose one")
    if not read and not options["fail_on"] and not baseline and not options["history"]:
        raise UsageError(
            "nothing to judge by",
            hint="give --budget, --fail-on, --baseline or --history; perfkit.yaml can hold them",
        )
    if options["only_new"] and not (baseline and options["fail_on"]):
        raise UsageError("--only-new needs --fail-on and --baseline captures to look into")
    if options["history"] and filters != type(filters)():
        raise UsageError(
            "--history holds figures of whole runs: it cannot be filtered",
            hint="give captures with --baseline to compare filtered",
        )
    runs, before = _open(captures, filters), _open(baseline, filters)
    if options["history"]:
        from perfkit.gate import history

        known = history.load(options["history"])
        before = history.latest(known, runs, last=options["last"], branch=options["branch"])
    refuse_repeated([*before, *runs])
    return _Gate(
        runs,
        before,
        read,
        options["fail_on"],
        options["only_new"],
        tuple(BY_LABEL[label] for label in options["measure"]) or DEFAULT_MEASURES,
        options["min_effect"],
        options["fail_on_improvement"],
        make_choice(options),
        options["ledger"],
        filters,
        options["confirm"],
    )


def _open(paths: Sequence[Path], filters: Filters) -> list[Run]:
    from perfkit.gate.runs import Run

    return [Run.of(open_tables(path, filters), str(path)) for path in paths]


def _tables(run: Run) -> Any:
    assert run.tables is not None
    return run.tables


def _new_name(path: Path) -> Path:
    """Return a name beside a capture for its rerun, that nothing has."""
    stem = path.name.removesuffix(".perfkit")
    number = 1
    while (target := path.with_name(f"{stem}-again-{number}.perfkit")).exists():
        number += 1
    return target


def _exit_code(result: Result, unstable: int) -> int:
    from perfkit.gate.result import EXIT_CODES

    return unstable if result.verdict == "unstable" else EXIT_CODES[result.verdict]


Writer = Callable[["Result", int], bytes]


def _outputs(options: dict[str, Any]) -> list[tuple[Path, Writer]]:
    """Return which files to write and how, having found out that they can be written."""
    from perfkit.gate.outputs import code_quality, junit, markdown, sarif

    wanted: list[tuple[Path | None, Writer]] = [
        (options["junit"], lambda result, _: junit.write(result)),
        (options["sarif"], lambda result, code: sarif.write(result, code, _config_name())),
        (options["markdown"], lambda result, _: markdown.write(result)),
        (options["gitlab"], lambda result, _: code_quality.write(result, _config_name())),
    ]
    found = [(target, write) for target, write in wanted if target is not None]
    for target, _ in found:
        check_writable(target)
    return found


def _config_name() -> str:
    """Return the file that results without a line of code point at."""
    from perfkit import config

    path = config.find(Path.cwd())
    inside = path is not None and path.is_relative_to(Path.cwd())
    return path.relative_to(Path.cwd()).as_posix() if path and inside else config.FILE_NAME


def _annotate(result: Result) -> None:
    """Say on the page of the GitHub job that this runs in, if it does, what did not pass."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    from perfkit.gate.outputs import annotations

    # Its runner reads both streams; standard output may be for a program.
    click.echo(annotations.write(result), nl=False, err=True)


def _summarise(result: Result) -> None:
    """Add the summary to that of the GitHub job that this runs in, if it does."""
    target = os.environ.get(_SUMMARY)
    if not target:
        return
    from perfkit.gate.outputs import markdown

    try:
        with Path(target).open("ab") as file:  # the steps of a job write one after the other
            file.write(markdown.write(result))
    except OSError as error:
        click.echo(f"perfkit: warning: ${_SUMMARY}: {error.strerror}: {target}", err=True)
