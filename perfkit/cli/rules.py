"""`perfkit rules`: what the rules are, what each one says, and whether they work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perfkit.cli import text
from perfkit.cli.options import folders_option, make_choice, rule_options
from perfkit.errors import GateFailed, PerfkitError, UsageError

if TYPE_CHECKING:
    from perfkit.rules.choose import Choice
    from perfkit.rules.model import Rule


@click.group()
def command() -> None:
    """List, explain, check, test and begin rules."""


@command.command("list", epilog="Example: perfkit rules list --group database")
@rule_options
@click.option("--json", "as_json", is_flag=True, help="Write the list as JSON.")
def list_(as_json: bool, **options: Any) -> None:
    """List the rules: id, and the problem that each one looks for."""
    rules = _load(make_choice(options))
    if as_json:
        click.echo(json.dumps([_as_data(rule) for rule in rules], indent=1, ensure_ascii=False))
        return
    for category in sorted({rule.category for rule in rules}):
        text.heading(category)
        chosen = [rule for rule in rules if rule.category == category]
        width = max(len(rule.id) for rule in chosen)
        for rule in chosen:
            marks = [rule.status] if rule.status != "stable" else []
            marks += ["silenced"] if rule.silenced else []
            mark = f" ({', '.join(marks)})" if marks else ""
            click.echo(f"{rule.id:{width}}  {text.plain(rule.title)}{mark}")


@command.command(epilog="Example: perfkit rules show db.n-plus-one")
@rule_options
@click.argument("rule_id", metavar="ID")
def show(rule_id: str, **options: Any) -> None:
    """Explain one rule: what it needs, its numbers and where they come from, what it advises."""
    rule = _choose(_load(make_choice(options)), (rule_id,))[0]
    click.secho(f"{rule.id}: {text.plain(rule.title)}", bold=True)
    needs = (f"{table} ({', '.join(columns)})" for table, columns in rule.requires.items())
    text.paragraph(f"{rule.category}, {rule.status}; needs {'; '.join(needs)}")
    text.heading("Numbers")
    for name, param in rule.params.items():
        text.paragraph(f"{name} = {param.shown} — {param.source}")
    text.heading("Query")
    for line in rule.query.text.splitlines():
        click.echo("  " + line)
    text.heading("Why")
    text.paragraph(rule.why.plain())
    text.heading("What to do")
    text.paragraph(f"{rule.fix.summary.plain()} (effort {rule.fix.effort})")
    for step in rule.fix.steps:
        whose = f"{step.software}: " if step.software else ""
        text.paragraph(f"- {whose}{step.text.plain()}")
    for setting in rule.fix.settings:
        text.paragraph(f"- {setting.software}: {setting.name} = {setting.value.plain()}")
    text.paragraph(f"Then: {rule.fix.metric.plain()}: {rule.fix.expect.plain()}")
    text.heading("When it is not a problem")
    for one in rule.false_positives:
        text.paragraph(f"- {one}")
    text.heading("Learn more")
    for reference in rule.references:
        click.echo(f"{text.plain(reference['title'])}: {reference['url']}")


@command.command(epilog="Example: perfkit rules lint perf/rules")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True))
def lint(files: tuple[Path, ...]) -> None:
    """Check rule FILES, or folders of them, or the shipped ones: fields, SQL, patterns, tests."""
    from perfkit.errors import RuleError
    from perfkit.resources import data_dir
    from perfkit.rules.load import load_rule, rule_files

    paths = [
        path
        for one in files or (data_dir("rules"),)
        for path in (rule_files(one) if one.is_dir() else [one])
    ]
    wrong = 0
    for path in paths:
        try:
            load_rule(path, tests=True)
        except RuleError as error:
            wrong += 1
            hint = f" ({error.hint})" if error.hint else ""
            click.echo(text.plain(f"{error.message}{hint}"))
    if wrong:
        raise PerfkitError(f"{wrong} of {len(paths)} rule files are wrong")
    click.echo(f"{len(paths)} rule files are well", err=True)


@command.command(epilog="Example: perfkit rules test --rules perf/rules team.slow-search")
@click.argument("ids", nargs=-1)
@folders_option
def test(ids: tuple[str, ...], rules: tuple[Path, ...]) -> None:
    """Run the tests that the rules carry: all of them, or those of the rules IDS."""
    from perfkit.rules.choose import Choice
    from perfkit.rules.fixed import check

    ran = failed = 0
    for rule in _choose(_load(Choice(rules), tests=True), ids):
        for one in rule.tests:
            ran += 1
            fault = check(rule, one)
            if fault is not None:
                failed += 1
                click.echo(f"{rule.path}:{one.line}: {rule.id}: {one.name}")
                text.paragraph(fault, indent=4)
    if failed:
        raise GateFailed(f"{failed} of {ran} tests failed")
    click.echo(f"{ran} tests passed", err=True)


@command.command(epilog="Example: perfkit rules new team.slow-search -o perf/rules")
@click.argument("rule_id", metavar="ID")
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder to put it in.  [default: this one]",
)
def new(rule_id: str, folder: Path) -> None:
    """Write a small rule with tests to begin from: the file ID.yaml, ID like team.slow-search."""
    import re

    from perfkit.capture import atomic_write
    from perfkit.rules import load
    from perfkit.rules.new import text as new_text

    if not re.fullmatch(load.ID_PATTERN, rule_id):
        raise UsageError(
            f"{rule_id!r} is not an id", hint="write a group and a name: team.slow-search"
        )
    path = folder / f"{rule_id}.yaml"
    if path.exists():
        raise UsageError(f"{path}: is there already", hint="choose another id")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(new_text(rule_id).encode())
    click.echo(path)
    click.echo(f"Next: perfkit rules test --rules {folder} {rule_id}", err=True)


@command.command(epilog="Example: perfkit rules schema > rule.schema.json")
def schema() -> None:
    """Write the JSON Schema of rule files, for editors."""
    from perfkit.rules.schema import schema as rule_schema

    click.echo(json.dumps(rule_schema(), indent=1, ensure_ascii=False))


def _load(choice: Choice, *, tests: bool = False) -> list[Rule]:
    """Return the chosen rules. Raises RuleError for the first that is broken."""
    from perfkit.errors import RuleError
    from perfkit.rules.choose import choose
    from perfkit.rules.model import BrokenRule

    rules = []
    for rule in choose(choice, tests=tests):
        if isinstance(rule, BrokenRule):
            raise RuleError(rule.reason)
        rules.append(rule)
    return rules


def _choose(rules: list[Rule], ids: tuple[str, ...]) -> list[Rule]:
    import difflib

    by_id = {rule.id: rule for rule in rules}
    for one in ids:
        if one not in by_id:
            close = difflib.get_close_matches(one, by_id, n=1)
            hint = f"did you mean {close[0]}?" if close else "perfkit rules list names them all"
            raise UsageError(f"there is no rule {one!r}", hint=hint)
    return [by_id[one] for one in ids] if ids else rules


def _as_data(rule: Rule) -> dict[str, object]:
    return {
        "id": rule.id,
        "title": rule.title,
        "category": rule.category,
        "status": rule.status,
        "requires": {table: list(columns) for table, columns in rule.requires.items()},
        "params": {
            name: {"value": param.value, "shown": param.shown, "source": param.source}
            for name, param in rule.params.items()
        },
        "references": [dict(one) for one in rule.references],
        "path": str(rule.path),
    }
