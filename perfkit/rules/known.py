"""SQL of the shipped rules as the guard found it, so that nobody has to parse it again.

To parse the SQL of all rules and to write it for Polars takes a quarter of the CPU time of a report
of half a minute. So `rules/written.json` (made by `make reference`; a test compares) holds what
came of it. A text is known by its SHA-256: what differs in one character is read anew, and so is
what names a column that is no more or has a parameter with another value.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from typing import Any

from sqlglot import exp

from perfkit.resources import data_dir
from perfkit.rules.model import Rule
from perfkit.sql import guard
from perfkit.sql.checked import Expression, JoinKey, Part, Query, Stage, Texts
from perfkit.sql.write import Value

FILE = "written.json"

Entries = dict[str, dict[str, Any]]
"""`queries` and `expressions` -> SHA-256 of a text -> what the guard found, as JSON holds it."""


def query(
    text: str, tables: Mapping[str, Collection[str]], params: Collection[str]
) -> Query | None:
    """Return a query that the guard would let pass over these tables; None if it must be asked."""
    entry = _entries()["queries"].get(_digest(text))
    if entry is None or not _all_in(entry["params"], params):
        return None
    names = {one["name"] for one in entry["stages"]}
    if any(name in tables for name in names):
        return None
    for stage in entry["stages"]:
        for table, columns in stage["needs"].items():
            if table not in names and not _all_in(columns, tables.get(table)):
                return None
    stages = tuple(_stage(text, number, one) for number, one in enumerate(entry["stages"]))
    return Query(text, stages, frozenset(entry["params"]), entry["ordered"])


def expression(text: str, columns: Collection[str], params: Collection[str]) -> Expression | None:
    """Return an expression that the guard would let pass; None if it must be asked."""
    entry = _entries()["expressions"].get(_digest(text))
    if entry is None or not _all_in(entry["params"], params):
        return None
    if not _all_in(entry["columns"], columns):
        return None
    part = Part(partial(guard.expression_tree, text), _texts(entry))
    return Expression(part, text, frozenset(entry["columns"]), frozenset(entry["params"]))


def _all_in(names: Iterable[str], among: Collection[str] | None) -> bool:
    return among is not None and all(name in among for name in names)


def _stage(text: str, number: int, entry: Mapping[str, Any]) -> Stage:
    return Stage(
        name=entry["name"],
        part=Part(partial(_tree, text, number), _texts(entry)),
        sources=entry["sources"],
        joins=tuple(tuple(JoinKey(*key) for key in keys) for keys in entry["joins"]),
        columns=tuple(entry["columns"]),
        reads=tuple(entry["reads"]),
        needs={table: frozenset(columns) for table, columns in entry["needs"].items()},
    )


def _tree(text: str, number: int) -> exp.Select:
    return _trees(text)[number]


@lru_cache(maxsize=256)
def _trees(text: str) -> list[exp.Select]:
    """Return the trees of all stages, since all are needed if one is."""
    return guard.query_trees(text)


def _texts(entry: Mapping[str, Any]) -> list[Texts]:
    # The second text is left out where it is the first.
    return [Texts(values, sql[0], sql[-1]) for values, sql in entry["texts"]]


_ANEW: list[bool] = []


@contextmanager
def nothing() -> Iterator[None]:
    """Let the guard read everything meanwhile."""
    _ANEW.append(True)
    try:
        yield
    finally:
        _ANEW.pop()


def _entries() -> Entries:
    return {"queries": {}, "expressions": {}} if _ANEW else _read()


@cache
def _read() -> Entries:
    """Return what the file says; a checkout in which it was not made yet says nothing."""
    try:
        read: Entries = json.loads((data_dir("rules") / FILE).read_bytes())
    except (OSError, ValueError):
        return {"queries": {}, "expressions": {}}
    return read


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def entries(rules: Iterable[Rule]) -> Entries:
    """Return what the guard found in rules that it read just now (see `nothing`)."""
    found: Entries = {"queries": {}, "expressions": {}}
    for rule in rules:
        for one in rule.queries():
            _add(found["queries"], one.text, _query_entry(one, rule.values))
        for each in rule.expressions():
            if each.text:
                _add(found["expressions"], each.text, _expression_entry(each, rule.values))
    return {kind: dict(sorted(known.items())) for kind, known in found.items()}


def _query_entry(query: Query, values: Mapping[str, Value]) -> dict[str, Any]:
    stages = [
        {
            "name": stage.name,
            "sources": dict(stage.sources),
            "joins": [
                [[key.source, key.column, key.joined, key.joined_column] for key in keys]
                for keys in stage.joins
            ],
            "columns": list(stage.columns),
            "reads": list(stage.reads),
            "needs": {table: sorted(stage.needs[table]) for table in sorted(stage.needs)},
            "texts": [_written(stage.part, values)],
        }
        for stage in query.stages
    ]
    return {"params": sorted(query.params), "ordered": query.ordered, "stages": stages}


def _expression_entry(expression: Expression, values: Mapping[str, Value]) -> dict[str, Any]:
    return {
        "columns": sorted(expression.columns),
        "params": sorted(expression.params),
        "texts": [_written(expression.part, values)],
    }


def _written(part: Part, values: Mapping[str, Value]) -> list[Any]:
    named = {one.name for one in part.tree.find_all(exp.Placeholder)}
    sql = part.both_sql(values)
    return [{name: values[name] for name in sorted(named)}, [*dict.fromkeys(sql)]]


def _add(known: dict[str, Any], text: str, entry: dict[str, Any]) -> None:
    """Keep an entry; of texts that rules share, the SQL with the values of each of them."""
    mine = known.setdefault(_digest(text), entry)
    if mine is entry:
        return
    pairs = zip(mine.get("stages", [mine]), entry.get("stages", [entry]), strict=True)
    for before, now in pairs:
        before["texts"] += [one for one in now["texts"] if one not in before["texts"]]
        for table, columns in now.get("needs", {}).items():
            # Which of two tables has a column may be another one in another rule.
            assert before["needs"][table] == columns, f"{table} in {text}"
