"""What SQL rules and users may run. Polars has no switch against reading files: this is the fence.

A query is parsed by sqlglot, and every node of the tree must be on the list below with no argument
beyond those listed: what is not known is refused. Tables and columns must exist, joins must compare
a column of each side. What runs is the SQL that is regenerated from the checked tree, with the
parameters as literals; the text itself never reaches the engine.

One SELECT, with or without common table expressions:

    WITH name AS (SELECT …)
    SELECT [DISTINCT] expression AS name, …
    FROM table [AS alias] [[LEFT|SEMI|ANTI] JOIN table ON a.column = b.column AND …]
    WHERE … GROUP BY … HAVING … QUALIFY … ORDER BY … LIMIT 10

Subqueries appear only as one value, `(SELECT request_ns FROM facts)`, and after IN.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import Token

from perfkit.sql.checked import Expression, Part, Query, Stage
from perfkit.sql.quiet import quiet_parser
from perfkit.sql.scopes import GuardError, at, describe, stage, unknown
from perfkit.sql.stars import spell_out_stars
from perfkit.sql.words import plain_tokens
from perfkit.sql.write import Engine

MAX_TEXT = 20_000
MAX_LITERAL = 2_000
MAX_NESTING = 40
MAX_NODES = 4_000
MAX_DEPTH = 100
MAX_STAGES = 12
MAX_LIST = 200

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
_BRACKET = re.compile(r"[()\[\]{}]")
_LAYOUT = str.maketrans("", "", "\n\t")
_BINARY = {"this", "expression"}
_ONE = {"this"}

_SCALAR: dict[type[exp.Expr], set[str]] = {
    **dict.fromkeys((exp.And, exp.Or, exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE), _BINARY),
    **dict.fromkeys((exp.Add, exp.Sub, exp.Mul, exp.Mod, exp.Is), _BINARY),
    **dict.fromkeys((exp.Like, exp.ILike), _BINARY | {"negate"}),
    exp.Div: _BINARY | {"typed", "safe"},
    **dict.fromkeys((exp.Not, exp.Neg, exp.Paren, exp.Star), _ONE),
    exp.Identifier: {"this", "quoted"},
    exp.Column: {"this", "table"},
    exp.Literal: {"this", "is_string"},
    exp.Boolean: _ONE,
    exp.Null: set(),
    exp.Placeholder: _ONE,
    exp.Between: {"this", "low", "high"},
    exp.In: {"this", "expressions", "query"},
    exp.Case: {"this", "ifs", "default"},
    exp.If: {"this", "true", "false"},
    exp.Cast: {"this", "to"},
    exp.DataType: _ONE,
    # functions
    exp.Coalesce: {"this", "expressions"},
    exp.Greatest: {"this", "expressions", "ignore_nulls"},
    exp.Least: {"this", "expressions", "ignore_nulls"},
    exp.Nullif: _BINARY,
    **dict.fromkeys((exp.Abs, exp.Ceil, exp.Floor, exp.Sqrt, exp.Ln, exp.Exp), _ONE),
    exp.Round: {"this", "decimals"},
    exp.Pow: _BINARY,
    **dict.fromkeys((exp.Length, exp.Lower, exp.Upper), _ONE),
    **dict.fromkeys((exp.StartsWith, exp.EndsWith, exp.RegexpLike), _BINARY),
    exp.Substring: {"this", "start", "length"},
    exp.ArraySize: _ONE,
    exp.ArrayToString: _BINARY,
    exp.ArrayContains: _BINARY,
}
"""Node -> the arguments that it may have; for expressions over one row."""

_AGGREGATE: dict[type[exp.Expr], set[str]] = {
    exp.Count: {"this", "big_int"},
    **dict.fromkeys((exp.Sum, exp.Avg, exp.Min, exp.Max, exp.Median, exp.Stddev), _ONE),
    **dict.fromkeys((exp.First, exp.Last, exp.ArrayAgg), _ONE),
    exp.Corr: {"this", "expression", "null_on_zero_variance"},
    exp.Anonymous: {"this", "expressions"},
    exp.Distinct: {"expressions"},
    exp.Window: {"this", "partition_by", "order", "over"},
    exp.RowNumber: set(),
    exp.Lag: _ONE,
}

_STRUCTURE: dict[type[exp.Expr], set[str]] = {
    exp.Select: {
        *("with_", "expressions", "from_", "joins", "where", "group", "having", "qualify"),
        *("order", "limit", "distinct"),
    },
    exp.With: {"expressions"},
    exp.CTE: {"this", "alias"},
    exp.TableAlias: _ONE,
    exp.From: _ONE,
    exp.Table: {"this", "alias"},
    exp.Join: {"this", "on", "side", "kind"},
    **dict.fromkeys((exp.Where, exp.Having, exp.Qualify, exp.Subquery), _ONE),
    exp.Group: {"expressions"},
    exp.Order: {"expressions"},
    exp.Ordered: {"this", "desc", "nulls_first"},
    exp.Limit: {"expression"},
    exp.Alias: {"this", "alias"},
}

_IN_QUERY = {**_SCALAR, **_AGGREGATE, **_STRUCTURE}
_ANONYMOUS = frozenset(("QUANTILE_CONT",))
"""Functions of Polars that sqlglot has no name for."""

_TYPES = frozenset(("DOUBLE", "BIGINT", "BOOLEAN", "TEXT", "VARCHAR"))


def check_expression(text: str, columns: Collection[str], params: Collection[str]) -> Expression:
    """Check an expression over one row. Raises GuardError."""
    root, read, given = _scalar(text)
    _check_params(given, params)
    used = set()
    for column in read:
        if column.table:
            raise at(column, f"{column.sql()}: columns have no table here")
        if column.name not in columns:
            raise at(column, *unknown("column", column.name, columns))
        used.add(column.name)
    return Expression(Part(root), text, frozenset(used), frozenset(one.name for one in given))


@lru_cache(maxsize=1024)
def _scalar(text: str) -> tuple[exp.Expr, list[exp.Column], list[exp.Placeholder]]:
    """Parse an expression; return it with the columns and parameters in it, whatever they are.

    Rules share many expressions. What is returned is never changed.
    """
    root = expression_tree(text)
    return root, *_check_nodes(root, _SCALAR)


def expression_tree(text: str) -> exp.Expr:
    """Return the tree of an expression, which nobody has checked. Raises GuardError."""
    return _parse(text, exp.Condition)


def check_query(
    text: str,
    tables: Mapping[str, Collection[str]],
    params: Collection[str] = (),
    *,
    stars: bool = False,
) -> Query:
    """Check a query over `tables` (name -> columns). Raises GuardError.

    With `stars`, `SELECT *` and `SELECT alias.*` stand for the columns of the tables.
    """
    root = _query_tree(text)
    if stars:
        spell_out_stars(root, tables)
    _, given = _check_nodes(root, _IN_QUERY)
    _check_params(given, params)
    known: dict[str, Collection[str]] = dict(tables)
    stages: list[Stage] = []
    for cte in _named(root):
        name = cte.alias
        if name in known:
            raise at(cte, f"the name {name} is taken by a table")
        if not isinstance(cte.this, exp.Select):
            raise at(cte, f"{name} is not a SELECT")
        stages.append(stage(name, cte.this, known))
        known[name] = stages[-1].columns
    if len(stages) > MAX_STAGES:
        raise GuardError(f"more than {MAX_STAGES} common table expressions")
    root.set("with_", None)
    stages.append(stage("", root, known))
    return Query(text, tuple(stages), frozenset(one.name for one in given), _is_ordered(root))


def query_trees(text: str) -> list[exp.Select]:
    """Return the tree of each stage of a query, which nobody has checked. Raises GuardError."""
    root = _query_tree(text)
    named = [cte.this for cte in _named(root)]
    root.set("with_", None)
    return [*named, root]


def _query_tree(text: str) -> exp.Select:
    root = _parse(text)
    if not isinstance(root, exp.Select):
        # A statement that is not parsed is a command, and called by its first word.
        what = root.name if isinstance(root, exp.Command) else root.key
        raise GuardError(f"{what[:60].upper()} is not allowed, only one SELECT")
    return root


def _named(root: exp.Select) -> list[exp.Expr]:
    """Return the common table expressions."""
    with_ = root.args.get("with_")
    return list(with_.expressions) if with_ else []


def _is_ordered(select: exp.Select) -> bool:
    if select.args.get("order"):
        return True
    return all(isinstance(part.unalias(), exp.AggFunc) for part in select.expressions)


_ENGINE = Engine()


def _parse(text: str, into: type[exp.Expr] | None = None) -> exp.Expr:
    """Return the tree of one statement, or of one expression."""
    if len(text) > MAX_TEXT:
        raise GuardError(f"longer than {MAX_TEXT} characters")
    if not text.translate(_LAYOUT).isprintable():
        bad = next(char for char in text if not char.isprintable() and char not in "\n\t")
        raise GuardError(f"the character U+{ord(bad):04X} is not allowed in SQL")
    if _nesting(text) > MAX_NESTING:
        raise GuardError(f"nested deeper than {MAX_NESTING} brackets")
    hint = "write one expression, for example: calls * mean_ns" if into else None
    try:
        words = plain_tokens(text) or _ENGINE.tokenize(text)
        trees = _trees(words, text, into)
    except SqlglotError as error:
        details = getattr(error, "errors", None) or [{}]
        line, column = details[0].get("line") or 1, details[0].get("col") or 1
        reason = details[0].get("description") or str(error).split("\n", 1)[0]
        raise GuardError(f"not valid SQL: {reason}", line, max(1, column), hint=hint) from error
    except RecursionError:
        raise GuardError("nested too deeply") from None
    if len(trees) != 1 or trees[0] is None:
        raise GuardError("not exactly one statement", hint=hint)
    return trees[0]


def _trees(words: list[Token], text: str, into: type[exp.Expr] | None) -> list[exp.Expr | None]:
    with quiet_parser():
        parser = _ENGINE.parser()
        return parser.parse_into(into, words, text) if into else parser.parse(words, text)


def _nesting(text: str) -> int:
    deepest = depth = 0
    for bracket in _BRACKET.findall(text):
        depth += 1 if bracket in "([{" else -1
        deepest = max(deepest, depth)
    return deepest


def _check_nodes(
    root: exp.Expr, allowed: Mapping[type[exp.Expr], set[str]]
) -> tuple[list[exp.Column], list[exp.Placeholder]]:
    """Refuse what is not allowed; return the columns and the parameters that are named."""
    columns: list[exp.Column] = []
    given: list[exp.Placeholder] = []
    number = 0
    todo = [(root, 1)]
    while todo:
        node, depth = todo.pop()
        number += 1
        if number > MAX_NODES:
            raise GuardError(f"more than {MAX_NODES} parts")
        if depth > MAX_DEPTH:
            raise at(node, f"nested deeper than {MAX_DEPTH} levels")
        arguments = allowed.get(type(node))
        if arguments is None:
            raise at(node, f"{describe(node)} is not allowed here")
        parts: list[exp.Expr] = []
        for key, value in node.args.items():
            if not value:
                continue
            if key not in arguments:
                raise at(node, f"{key.rstrip('_').upper()} is not allowed here")
            if isinstance(value, exp.Expr):
                parts.append(value)
            elif isinstance(value, list):
                parts += [each for each in value if isinstance(each, exp.Expr)]
        check = _CHECKS.get(type(node))
        if check is not None:
            check(node)
        if isinstance(node, exp.Column):
            columns.append(node)
        elif isinstance(node, exp.Placeholder):
            given.append(node)
        if parts:
            parts.reverse()
            todo += [(part, depth + 1) for part in parts]
    return columns, given


def _check_function(node: exp.Expr) -> None:
    if node.name.upper() not in _ANONYMOUS:
        raise at(node, f"{describe(node)} is not allowed here")


def _check_identifier(node: exp.Expr) -> None:
    if not _NAME.match(node.name):
        raise at(node, f"{node.name[:60]!r} is not a plain name")


def _check_literal(node: exp.Expr) -> None:
    if len(node.this) > (MAX_LITERAL if node.args.get("is_string") else 40):
        raise at(node, "the literal is too long")
    if node.args.get("is_string"):
        return
    try:
        fits = math.isfinite(float(node.this))
    except ValueError:
        fits = False
    if not fits:
        raise at(node, f"the number {node.this} is none that can be computed with")


def _check_type(node: exp.Expr) -> None:
    name = getattr(node.this, "value", str(node.this))
    if name not in _TYPES:
        hint = f"known: {', '.join(sorted(_TYPES))}"
        raise at(node, f"the type {name} is not allowed", hint)


def _check_star(node: exp.Expr) -> None:
    if not isinstance(node.parent, exp.Count):
        raise at(node, "* is allowed only in COUNT(*): name the columns")


def _check_list(node: exp.Expr) -> None:
    if len(node.expressions) > MAX_LIST:
        raise at(node, f"a list of more than {MAX_LIST} values")


def _check_limit(node: exp.Expr) -> None:
    if not isinstance(node.expression, exp.Literal | exp.Placeholder):
        raise at(node, "LIMIT must be a number")


def _check_subquery(node: exp.Expr) -> None:
    if not isinstance(node.this, exp.Select) or isinstance(node.parent, exp.From | exp.Join):
        raise at(node, "a subquery is allowed only as one value", "use WITH name AS (…)")


_CHECKS: dict[type[exp.Expr], Callable[[exp.Expr], None]] = {
    exp.Anonymous: _check_function,
    exp.Identifier: _check_identifier,
    exp.Literal: _check_literal,
    exp.DataType: _check_type,
    exp.Star: _check_star,
    exp.In: _check_list,
    exp.Limit: _check_limit,
    exp.Subquery: _check_subquery,
}


def _check_params(nodes: Iterable[exp.Placeholder], params: Collection[str]) -> None:
    for node in nodes:
        if not node.this or node.name not in params:
            raise at(node, *unknown("parameter", f":{node.this or ''}", [f":{p}" for p in params]))
