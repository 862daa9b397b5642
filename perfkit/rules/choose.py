"""Which rules run and with which numbers: own folders, groups, silenced, tuned and scoped rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from perfkit import cycles
from perfkit.errors import RuleError, UsageError
from perfkit.resources import data_dir
from perfkit.rules import fields
from perfkit.rules.load import load_rule, rule_files
from perfkit.rules.model import BrokenRule, Rule
from perfkit.sql.scopes import unknown

_ENDPOINTS = "endpoints"


@dataclass(frozen=True)
class Choice:
    """What a user says about the rules, on the command line or in perfkit.yaml."""

    folders: tuple[Path, ...] = ()
    """Folders of rules beside the shipped ones. A rule with a known id replaces that rule."""
    groups: tuple[str, ...] = ()
    """Only rules of these categories; all when empty."""
    silence: tuple[str, ...] = ()
    """Ids of rules that do not run."""
    tune: tuple[str, ...] = ()
    """`ID.PARAM=VALUE` gives a parameter another value; `ID.endpoints=PATTERN` keeps only findings
    about endpoints that match (`*` stands for anything), and may be given more than once."""


def choose(choice: Choice | None = None, *, tests: bool = False) -> list[Rule | BrokenRule]:
    """Return the rules that the user wants, by id; silenced ones are marked and stay in the list.

    A file that is no valid rule comes back as a BrokenRule, so that the others are still heard.
    Raises UsageError for a group, rule, parameter or value that does not exist.
    """
    choice = choice or Choice()
    rules = _load((data_dir("rules"), *choice.folders), tests=tests)
    whole = {name: rule for name, rule in rules.items() if isinstance(rule, Rule)}
    for name, changes in _changes(choice.tune, whole).items():
        rules[name] = _tuned(whole[name], changes)
    for name in choice.silence:
        silenced = rules[_known("rule", name, rules)]
        if isinstance(silenced, Rule):
            rules[name] = replace(silenced, silenced=True)
        else:
            del rules[name]
    groups = sorted({rule.category for rule in whole.values()})
    wanted = {_known("group", group, groups) for group in choice.groups}
    return [
        rules[name]
        for name in sorted(rules)
        if not wanted or name not in whole or whole[name].category in wanted
    ]


@cycles.rarely_sought()
def _load(folders: Iterable[Path], *, tests: bool) -> dict[str, Rule | BrokenRule]:
    rules: dict[str, Rule | BrokenRule] = {}
    for folder in folders:
        mine: dict[str, Path] = {}
        for path in rule_files(folder):
            if path.stem in mine:
                raise RuleError(f"{path}: the rule {path.stem} is also in {mine[path.stem]}")
            mine[path.stem] = path
            try:
                rules[path.stem] = load_rule(path, tests=tests)
            except RuleError as error:
                hint = f" ({error.hint})" if error.hint else ""
                rules[path.stem] = BrokenRule(path.stem, path, f"{error.message}{hint}")
    return rules


def _known(what: str, name: str, among: Iterable[str]) -> str:
    names = list(among)
    if name not in names:
        message, hint = unknown(what, name, names)
        raise UsageError(message, hint=hint)
    return name


def _changes(tunings: Iterable[str], rules: Mapping[str, Rule]) -> dict[str, list[tuple[str, str]]]:
    changes: dict[str, list[tuple[str, str]]] = {}
    for tuning in tunings:
        target, equals, value = tuning.partition("=")
        name, dot, param = target.strip().rpartition(".")
        if not (equals and dot and value.strip()):
            raise UsageError(
                f"{tuning!r} does not tune a rule", hint="write db.slow-query.slow=200ms, say"
            )
        changes.setdefault(_known("rule", name, rules), []).append((param, value.strip()))
    return changes


def _tuned(rule: Rule, changes: Iterable[tuple[str, str]]) -> Rule:
    params = dict(rule.params)
    patterns: list[str] = []
    for name, value in changes:
        if name == _ENDPOINTS:
            patterns.append(value)
            continue
        _known(f"parameter of {rule.id}", name, [*params, _ENDPOINTS])
        try:
            params[name] = fields.retuned(params[name], value)
        except ValueError as error:
            raise UsageError(f"{rule.id}.{name}: {error}") from error
        _check_pattern(rule, name, value)
    return replace(rule, params=params, endpoints=tuple(patterns))


def _check_pattern(rule: Rule, name: str, value: str) -> None:
    """Refuse a text that is to be a regular expression and is none."""
    if rule.params[name].unit != "text":
        return
    from perfkit.rules import patterns

    found = patterns.fault(value) if name in patterns.parameters(rule) else None
    if found is not None:
        raise UsageError(f"{rule.id}.{name}: no regular expression of Polars: {found[0]}")
