"""`perfkit rules`: what the rules are, what each one says, and whether they work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perfkit.cli import text
from perfkit.errors import GateFailed, PerfkitError, UsageError

if TYPE_CHECKING:
    from perfkit.rules.model import Rule

_FOLDER = click.option(
    "--rules",
    "folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of rules, instead of the shipped ones.",
)


@click.group()
def command() -> None:
    """List, explain, check and test the rules."""


@command.command("list")
@_FOLDER
@click.option("--json", "as_json", is_flag=True, help="Write the list as JSON.")
def list_(folder: Path | None, as_json: bool) -> None:
    """List the rules: id, and the problem that each one looks for."""
    rules = _load(folder)
    if as_json:
        click.echo(json.dumps([_as_data(rule) for rule in rules], indent=1, ensure_ascii=False))
        return
    for category in sorted({rule.category for rule in rules}):
        text.heading(category)
        chosen = [rule for rule in rules if rule.category == category]
        width = max(len(rule.id) for rule in chosen)
        for rule in chosen:
            mark = "" if rule.status == "stable" else f" ({rule.status})"
            click.echo(f"{rule.id:{width}}  {text.plain(rule.title)}{mark}")


@command.command()
@_FOLDER
@click.argument("rule_id", metavar="ID")
def show(folder: Path | None, rule_id: str) -> None:
    """Explain one rule: what it needs, its numbers and where they come from, what it advises."""
    rule = _choose(_load(folder), (rule_id,))[0]
    click.secho(f"{rule.id}: {text.plain(rule.title)}", bold=True)
    needs = (f"{table} ({', '.join(columns)})" for table, columns in rule.requires.items())
    text.paragraph(f"{rule.category}, {rule.status}; needs {'; '.join(needs)}")
    text.heading("Numbers")
    for name, param in rule.params.items():
        text.paragraph(f"{name} = {param.shown} — {param.source}")
    text.heading("Query")
    for line in rule.query_text.splitlines():
        click.echo("  " + line)
    text.heading("Why")
    text.paragraph(rule.why.plain())
    text.heading("What to do")
    text.paragraph(f"{rule.fix.summary.plain()} (effort {rule.fix.effort})")
    for step in rule.fix.steps:
        text.paragraph(f"- {step.plain()}")
    for setting in rule.fix.settings:
        text.paragraph(f"- {setting.software}: {setting.name} = {setting.value.plain()}")
    text.paragraph(f"Then: {rule.fix.metric.plain()}: {rule.fix.expect.plain()}")
    text.heading("When it is not a problem")
    for one in rule.false_positives:
        text.paragraph(f"- {one}")
    text.heading("Learn more")
    for reference in rule.references:
        click.echo(f"{text.plain(reference['title'])}: {reference['url']}")


@command.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True))
@_FOLDER
def lint(files: tuple[Path, ...], folder: Path | None) -> None:
    """Check rule FILES (or all rules): fields, SQL, columns, texts, tests."""
    from perfkit.errors import RuleError
    from perfkit.resources import data_dir
    from perfkit.rules.load import load_rule, rule_files

    paths = [
        path
        for one in files or (folder or data_dir("rules"),)
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


@command.command()
@click.argument("ids", nargs=-1)
@_FOLDER
def test(ids: tuple[str, ...], folder: Path | None) -> None:
    """Run the tests that the rules carry: all of them, or those of the rules IDS."""
    from perfkit.rules.fixed import check

    ran = failed = 0
    for rule in _choose(_load(folder, tests=True), ids):
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


def _load(folder: Path | None, *, tests: bool = False) -> list[Rule]:
    from perfkit.rules.load import load_rules

    return load_rules((folder,) if folder else None, tests=tests)


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
