"""The regular expressions of a rule, tried by the engine that runs them.

Polars knows no look-around and no references back, which the SQL of others does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import polars as pl
from sqlglot import exp

from perfkit.rules.document import Node
from perfkit.rules.model import Rule

_CARET = re.compile(r"^ {4}( *)\^", re.MULTILINE)
_REASON = re.compile(r"^error: (.*)$", re.MULTILINE)
_SPELT = re.compile("regexp|rlike|~", re.IGNORECASE)
"""Each way to write such a match holds one of these: a text without them need not be parsed."""


def fault(pattern: str) -> tuple[str, int] | None:
    """Return what is wrong with a regular expression and at which column of it; None if nothing."""
    try:
        pl.Series([""], dtype=pl.String).str.contains(pattern)
    except pl.exceptions.PolarsError as error:
        said = str(error)
        caret, reason = _CARET.search(said), _REASON.search(said)
        first = said.splitlines()[0].removeprefix("regex error: ").strip()
        return (reason[1] if reason else first), (len(caret[1]) if caret else 0)
    return None


def parameters(rule: Rule) -> Iterator[str]:
    """Yield the names of the parameters that the rule takes as regular expressions."""
    yield from {one.name for one in _given(rule) if isinstance(one, exp.Placeholder)}


def check(rule: Rule, params: Iterable[tuple[str, Node]], top: Node) -> None:
    """Raise RuleError with the place of a regular expression that cannot run."""
    used = set(parameters(rule))
    for name, node in params:
        if name in used and isinstance(node.value, dict):
            _check(str(rule.params[name].value), node.value["default"])
    written = {one.this for one in _given(rule) if isinstance(one, exp.Literal) and one.is_string}
    for pattern in sorted(written):
        _check(pattern, next(_texts(top, pattern.replace("'", "''")), top))


def _check(pattern: str, node: Node) -> None:
    found = fault(pattern)
    if found is None:
        return
    reason, column = found
    place = node.place
    if isinstance(node.value, str):
        before = node.value.partition(pattern.replace("'", "''"))[0]
        line = before.count("\n") + 1
        place = node.text_place(line, len(before) - before.rfind("\n") + column)
    raise place.error(f"no regular expression of Polars: {reason}", "its syntax is that of Rust's")


def _given(rule: Rule) -> Iterator[exp.Expr]:
    """Yield what stands at the place of a regular expression."""
    for tree in _trees(rule):
        for call in tree.find_all(exp.RegexpLike):
            yield call.expression


def _trees(rule: Rule) -> Iterator[exp.Expr]:
    for query in rule.queries():
        if _SPELT.search(query.text):
            yield from (stage.select for stage in query.stages)
    for expression in rule.expressions():
        if not expression.text or _SPELT.search(expression.text):
            yield expression.tree


def _texts(node: Node, piece: str) -> Iterator[Node]:
    """Yield the texts below a node in which a piece stands."""
    if isinstance(node.value, str):
        if piece in node.value:
            yield node
        return
    if isinstance(node.value, dict):
        below = list(node.value.values())
    else:
        below = node.value if isinstance(node.value, list) else []
    for one in below:
        yield from _texts(one, piece)
