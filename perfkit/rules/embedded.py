"""The tests that a rule carries: rows of tables, and what the rule must say about them.

A row is a map of columns. Several rows that differ by a step are written once::

    - {repeat: 12, step: {span_id: 1, start_ns: 4ms}, rows: [{span_id: 10, start_ns: 1ms, …}]}

Columns that end in `_ns` may be texts with a unit, `450ms`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from perfkit import units
from perfkit.rules import fields
from perfkit.rules.document import Node
from perfkit.rules.fields import Map
from perfkit.rules.model import SEVERITIES, ExpectedFinding, RuleTest
from perfkit.sql.scopes import unknown

MAX_ROWS = 20_000

Row = dict[str, Any]


def read_tests(nodes: list[Node], tables: Mapping[str, tuple[str, ...]]) -> tuple[RuleTest, ...]:
    """Return the tests of a rule. Raises RuleError with the place of what is wrong."""
    return tuple(_test(node, tables) for node in nodes)


def _test(node: Node, tables: Mapping[str, tuple[str, ...]]) -> RuleTest:
    top = Map(node, "a test", ("name", "tables", "expect"))
    given: dict[str, list[Row]] = {}
    for table, rows in top.pairs("tables"):
        if table not in tables:
            raise rows.place.error(*unknown("table", table, tables))
        given[table] = list(_rows(rows, table, tables[table]))
        if len(given[table]) > MAX_ROWS:
            raise rows.place.error(f"more than {MAX_ROWS} rows")
    expect = top["expect"]
    if isinstance(expect.value, list):
        found = tuple(_expected(one) for one in expect.value)
        return RuleTest(top.text("name"), node.place.line, given, found)
    word = top.choice("expect", ("quiet", "not_applicable"))
    return RuleTest(top.text("name"), node.place.line, given, word)


def _rows(node: Node, table: str, columns: tuple[str, ...]) -> Iterator[Row]:
    for item in fields.items(node, f"rows of {table}"):
        if not isinstance(item.value, dict) or "repeat" not in item.value:
            yield _row(item, table, columns)
            continue
        top = Map(item, "repeated rows", ("repeat", "step", "rows"))
        count = top["repeat"].value
        if not isinstance(count, int) or not 1 <= count <= MAX_ROWS:
            raise top["repeat"].place.error(f"repeat must be a number from 1 to {MAX_ROWS}")
        step = _row(top["step"], table, columns)
        rows = list(_rows(top["rows"], table, columns))
        for key in step:
            if not all(_counts(row.get(key, 0)) for row in (step, *rows)):
                raise top["step"].place.error(f"a step of {key}, which is no number in all rows")
        for number in range(min(count, MAX_ROWS // max(1, len(rows)) + 1)):
            for row in rows:
                yield row | {key: row.get(key, 0) + number * by for key, by in step.items()}


def _counts(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _row(node: Node, table: str, columns: tuple[str, ...]) -> Row:
    row: Row = {}
    for name, value in fields.pairs(node, f"a row of {table}"):
        if name not in columns:
            raise value.place.error(*unknown(f"column of {table}", name, columns))
        row[name] = _value(name, value)
    return row


def _value(column: str, node: Node) -> Any:
    if isinstance(node.value, list):
        return [one.value for one in node.value]
    if isinstance(node.value, dict):
        raise node.place.error(f"{column} cannot be a map")
    if isinstance(node.value, str) and column.endswith("_ns"):
        try:
            return units.parse_duration(node.value)
        except ValueError as error:
            raise node.place.error(str(error)) from error
    return node.value


def _expected(node: Node) -> ExpectedFinding:
    top = Map(node, "an expected finding", ("severity",), ("says", "key"))
    says = tuple(fields.text(one, "a text") for one in top.items("says"))
    key = {name: fields.text(one, "a key") for name, one in top.pairs("key")}
    return ExpectedFinding(top.choice("severity", SEVERITIES), says, key)
