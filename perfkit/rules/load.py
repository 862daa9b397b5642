"""Rule files: read, checked against the tables that exist, ready to run.

The order in which a rule is computed is the order of its fields: the query gives one row per
suspicion; each line of `derive` adds a column; `what_if` adds the columns impact_low_ratio and
impact_high_ratio; the first line of `severity` that holds decides; the texts are filled in last.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from perfkit import cycles
from perfkit import model as tables_model
from perfkit.errors import RuleError
from perfkit.resources import data_dir
from perfkit.rules import document, embedded, fields, what_if
from perfkit.rules.document import Node
from perfkit.rules.fields import Map
from perfkit.rules.model import (
    EFFORTS,
    IMPACT_COLUMNS,
    SEVERITIES,
    STATUSES,
    Fix,
    Instruction,
    Param,
    Rule,
    Setting,
    Step,
    WhatIf,
)
from perfkit.rules.software import NAMES
from perfkit.sql.checked import Expression
from perfkit.sql.scopes import unknown

ID_PATTERN = r"^[a-z][a-z0-9]*\.[a-z0-9]+(?:-[a-z0-9]+)*$"
_LINK = re.compile(r"https://[!#-;=?-\[\]_a-z~]+\Z")  # the characters of RFC 3986
_COLUMN = re.compile(r"[a-z][a-z0-9_]*\Z")
REQUIRED = (
    *("id", "title", "category", "status", "requires", "query", "derive", "severity", "key"),
    *("headline", "message", "why", "fix", "false_positives", "references", "tests"),
)
_OPTIONAL = ("params", "what_if", "risk")

Columns = dict[str, tuple[str, ...]]


def load_rules(*, tests: bool = False) -> list[Rule]:
    """Return the shipped rules, by id; the tests that they carry are read on demand.

    Raises RuleError for the first wrong file; `choose.choose` goes on with the others.
    """
    with cycles.rarely_sought():
        rules = [load_rule(path, tests=tests) for path in rule_files(data_dir("rules"))]
    return sorted(rules, key=lambda rule: rule.id)


def rule_files(folder: Path) -> list[Path]:
    """Return the rule files in a folder and its groups. Raises RuleError when it is none."""
    if not folder.is_dir():
        raise RuleError(f"{folder}: not a folder", hint="name the folder that holds the rules")
    return sorted(path for path in folder.rglob("*.yaml") if path.is_file())


@lru_cache(maxsize=1)
def known_tables() -> Columns:
    """Return the columns of every table that a query may read."""
    from perfkit.analysis.session import derived_tables

    captured = {name: tuple(table.schema) for name, table in tables_model.BY_NAME.items()}
    return captured | {name: tuple(one.columns) for name, one in derived_tables().items()}


def load_rule(path: Path, *, tests: bool = False) -> Rule:
    """Return the checked rule of one file. Raises RuleError with file, line and column."""
    read = document.read(path, without=None if tests else "tests")
    top = Map(read, "a rule", REQUIRED, _OPTIONAL)
    rule_id = top.text("id")
    if not re.fullmatch(ID_PATTERN, rule_id) or path.stem != rule_id:
        raise top["id"].place.error(
            f"the id {rule_id!r} must look like db.slow-query and be the file's name"
        )
    tables = known_tables()
    requires = {table: _needed(table, node, tables) for table, node in top.pairs("requires")}
    params = {name: _param(name, node) for name, node in top.pairs("params")}
    query = fields.query(top["query"], tables, params)
    if not query.ordered:
        # The same capture must give the same report.
        raise top["query"].place.error("the query lacks ORDER BY", "put the worst rows first")
    columns = set(query.columns)
    derive: dict[str, Expression] = {}
    for name, node in top.pairs("derive"):
        if not _COLUMN.match(name) or name in columns or name in params:
            raise node.place.error(f"the name {name!r} is taken or not a plain column name")
        derive[name] = fields.expression(node, columns, params)
        columns.add(name)
    change = None
    if "what_if" in top:
        change = what_if.read(top["what_if"], columns, params, tables)
    _check_special(top, columns, change)
    columns |= set(IMPACT_COLUMNS)
    severity = tuple(_severity(top, columns, params))
    texts = columns | set(params)
    rule = Rule(
        id=rule_id,
        title=top.text("title"),
        category=top.text("category"),
        status=top.choice("status", STATUSES),
        path=path,
        requires=requires,
        params=params,
        query=query,
        derive=derive,
        what_if=change,
        severity=severity,
        key=tuple(_key(node, columns) for node in top.items("key")),
        headline=top.message("headline", texts),
        message=top.message("message", texts),
        risk=top.message("risk", texts) if "risk" in top else None,
        why=top.message("why", texts),
        fix=_fix(top["fix"], columns, params),
        false_positives=tuple(
            fields.text(node, "a false positive") for node in top.items("false_positives")
        ),
        references=tuple(_reference(node) for node in top.items("references")),
        tests=embedded.read_tests(top.items("tests"), tables) if tests else (),
    )
    if tests:
        from perfkit.rules import patterns

        patterns.check(rule, top.pairs("params"), read)
    return rule


def _needed(table: str, node: Node, tables: Columns) -> tuple[str, ...]:
    if table not in tables:
        raise node.place.error(*unknown("table", table, tables))
    names = [fields.text(one, "a column") for one in fields.items(node, f"columns of {table}")]
    for one, name in zip(fields.items(node, table), names, strict=True):
        if name not in tables[table]:
            raise one.place.error(*unknown(f"column of {table}", name, tables[table]))
    return tuple(names)


def _param(name: str, node: Node) -> Param:
    if not _COLUMN.match(name):
        raise node.place.error(f"{name!r} is not a plain name")
    return fields.param(node, name)


def _check_special(top: Map, columns: Collection[str], change: WhatIf | None) -> None:
    saved = {"saved_low_ratio", "saved_high_ratio"} & set(columns)
    if len(saved) == 1:
        raise top["derive"].place.error("derive both saved_low_ratio and saved_high_ratio")
    if "risk" in top and (saved or change is not None):
        raise top.node.place.error(
            "a rule with a risk has no what_if, and no columns saved_low_ratio and saved_high_ratio"
        )
    if "confidence" not in columns:
        raise top["derive"].place.error("derive lacks the column confidence, from 0 to 1")


def _severity(top: Map, columns: Collection[str], params: Mapping[str, Param]) -> Iterable[Step]:
    steps = top.items("severity")
    if not steps:
        raise top["severity"].place.error("severity has no line")
    for number, node in enumerate(steps, 1):
        last = number == len(steps)
        step = Map(node, "a line of severity", ("is",) if last else ("when", "is"))
        when = None if last else fields.expression(step["when"], columns, params)
        yield Step(when, step.choice("is", SEVERITIES))


def _key(node: Node, columns: Collection[str]) -> str:
    name = fields.text(node, "a column of key")
    if name not in columns:
        raise node.place.error(*unknown("column", name, columns))
    return name


def _fix(node: Node, columns: Collection[str], params: Mapping[str, Param]) -> Fix:
    top = Map(node, "fix", ("summary", "effort", "steps", "verify"), ("settings",))
    texts = {*columns, *params}
    verify = Map(top["verify"], "verify", ("metric", "expect"))
    return Fix(
        summary=top.message("summary", texts),
        effort=top.choice("effort", EFFORTS),
        steps=tuple(_instruction(step, texts) for step in top.items("steps")),
        settings=tuple(_setting(one, columns, params) for one in top.items("settings")),
        metric=verify.message("metric", texts),
        expect=verify.message("expect", texts),
    )


def _instruction(node: Node, texts: Collection[str]) -> Instruction:
    if not isinstance(node.value, dict):
        return Instruction(fields.message(node, texts), None)
    top = Map(node, "a step", ("software", "step"))
    return Instruction(top.message("step", texts), top.choice("software", NAMES))


def _setting(node: Node, columns: Collection[str], params: Mapping[str, Param]) -> Setting:
    top = Map(node, "a setting", ("software", "name", "value"), ("when",))
    when = fields.expression(top["when"], columns, params) if "when" in top else None
    value = top.message("value", {*columns, *params})
    return Setting(top.choice("software", NAMES), top.text("name"), value, when)


def _reference(node: Node) -> dict[str, str]:
    top = Map(node, "a reference", ("title", "url"))
    url = top.text("url")
    if not _LINK.match(url):
        raise top["url"].place.error("a reference must be an https link")
    return {"title": top.text("title"), "url": url}
