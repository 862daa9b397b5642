"""Which columns of a query an index could cover, from its text alone: a proposal, to be checked.

Columns that are compared for equality come first, then one that is compared for a range, then those
of ORDER BY, which an index serves only where nothing else stands between: after a range, only if
that is the first to be sorted by, and not after a list of values. See https://www.postgresql.org/docs/current/indexes-multicolumn
and https://use-the-index-luke.com/sql/where-clause/searching-for-ranges/greater-less-between-tuning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import polars as pl
import sqlglot
from sqlglot import exp
from sqlglot.optimizer.normalize_identifiers import normalize_identifiers

from perfkit.analysis.database.statements import (
    DIALECTS,
    PARAMETER,
    UNPARSABLE,
    is_quickly_parsed,
)
from perfkit.sql.quiet import quiet_parser

_MOST = 30
"""So many queries are looked at, those that take most time; parsing is slow."""
_QUERY = re.compile(r"(?i)\s*(SELECT|WITH)\b")
_RANGES = (exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Between)
_FLIPPED = (exp.EQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.NullSafeEQ)
_WILD = re.compile(r"[%_]")
_NOT_BY_ROW = (exp.From, exp.Join, exp.In, exp.Exists)
_KEY = "id"
"""A column that by its name has an index: a primary key."""


class Proposal(NamedTuple):
    """Indexes as `table (column, …)`, or why none can be proposed."""

    on: str | None = None
    also: str | None = None
    """Of another table: one that is joined, or the one around a subquery."""
    doubt: str | None = None
    per_outer: bool = False
    """Whether a subquery looks it up for each row of the query around it."""


class _Compared(NamedTuple):
    """Columns of one table, as written, by how they are compared."""

    equal: dict[str, None]
    ranged: dict[str, None]
    joined: dict[str, None]
    listed: dict[str, None]
    """Those of `equal` that are compared with several values."""


def with_proposals(queries: pl.DataFrame) -> pl.DataFrame:
    """Add `index_on`, `_also`, `_doubt` and `_per_outer` to queries, the slowest first."""
    asked = queries.select("db_system", "example", "statement").head(_MOST)
    found = [propose(system or "", example or text) for system, example, text in asked.iter_rows()]
    found += [Proposal()] * (queries.height - len(found))
    return queries.with_columns(
        pl.Series(
            f"index_{name}",
            [getattr(one, name) for one in found],
            dtype=pl.Boolean if name == "per_outer" else pl.String,
        )
        for name in Proposal._fields
    )


def propose(system: str, text: str) -> Proposal:
    """Return the index that could serve a query; nothing for what is no query of one SELECT."""
    dialect = DIALECTS.get(system.lower())
    if dialect is None or not _QUERY.match(text) or not is_quickly_parsed(text):
        return Proposal()
    # A parameter stays unlike a value, whose pattern would be known.
    text = PARAMETER.sub(lambda match: match[1] or ":p", text)
    text = re.sub(r"(?<=[\s(,=<>])\?", ":p", text)
    try:
        with quiet_parser():
            tree = sqlglot.parse_one(text, read=dialect)
        # A name without quotes may be written in capitals here and in small letters there.
        return _proposed(normalize_identifiers(tree, dialect=dialect), dialect)
    except UNPARSABLE:
        return Proposal()


def _proposed(tree: exp.Expr, dialect: str) -> Proposal:
    derived = {one.alias_or_name for one in tree.find_all(exp.CTE, exp.Subquery)}
    doubts: dict[str, None] = {}
    selects = list(_selects(tree))
    if not selects:
        return Proposal()
    looked_up = [(select, list(_per_outer(select, derived, dialect))) for select in selects]
    per_outer = [index for _, indexes in looked_up for index in indexes]
    for select in (one for one, indexes in looked_up if not indexes):
        tables = _tables(select, derived)
        compared = {name: _Compared({}, {}, {}, {}) for name in tables}
        for condition in _conditions(select):
            doubt = _note(condition, compared, dialect)
            if doubt:
                doubts[doubt] = None
        found = list(_served(select, compared, tables, dialect))
        if found:
            return _first([*per_outer, *found], per_outer=bool(per_outer))
        if any(_worth(one) for one in compared.values()):
            doubts["it is found by id, which is a primary key as a rule"] = None
    if per_outer:
        return _first(per_outer, per_outer=True)
    return Proposal(doubt="; ".join(doubts) or "no condition compares a column with a value")


def _first(indexes: Iterable[str], *, per_outer: bool) -> Proposal:
    on, also, *_ = *dict.fromkeys(indexes), None
    return Proposal(on, also, per_outer=per_outer)


def _per_outer(select: exp.Select, derived: set[str], dialect: str) -> Iterator[str]:
    """Yield the index by which a subquery finds what belongs to a row of the query around it.

    Without it a table is read as often as there are rows. EXISTS and IN are left out, of which
    databases make joins.
    """
    holder = select.parent
    if not isinstance(holder, exp.Subquery) or isinstance(holder.parent, _NOT_BY_ROW):
        return
    tables = _tables(select, derived)
    names = {part.alias_or_name for part in _parts(select)}
    found: dict[str, dict[str, None]] = {}
    valued = {name: _Compared({}, {}, {}, {}) for name in tables}
    for condition in _conditions(select):
        _note(condition, valued, dialect)
        sides = (condition.this, condition.expression) if isinstance(condition, exp.EQ) else ()
        for side, other in (sides, sides[::-1]) if sides else ():
            if isinstance(side, exp.Column) and isinstance(other, exp.Column):
                owner = _owner(side, tables)
                if owner and other.table and other.table not in names:
                    found.setdefault(owner, {})[_written(side, dialect)] = None
    for owner, columns in found.items():
        if not any(_is_key(each) for each in columns):
            every = ", ".join(
                [*columns, *(one for one in valued[owner].equal if one not in columns)]
            )
            yield f"{tables[owner].sql(dialect)} ({every})"


def _served(
    select: exp.Select,
    compared: Mapping[str, _Compared],
    tables: Mapping[str, exp.Table],
    dialect: str,
) -> Iterator[str]:
    """Yield the indexes that a SELECT could use, that of the table with most conditions first.

    A table that is only joined is looked up by the columns that join it, for each row of the first.
    """
    if not any(_worth(one) for one in compared.values()):
        return
    for name, one in sorted(compared.items(), key=lambda pair: _worth(pair[1]), reverse=True):
        order = _sorted_by(select, name, tables, dialect)
        columns = _columns(one, order) if _worth(one) else list(one.joined)
        found_by = [*(one.equal if _worth(one) else one.joined)] or columns
        if columns and not any(_is_key(each) for each in found_by):
            yield f"{tables[name].sql(dialect)} ({', '.join(columns)})"


def _selects(tree: exp.Expr) -> Iterator[exp.Select]:
    """Yield the SELECTs, outer ones first."""
    return (one for one in tree.find_all(exp.Select, bfs=True) if one.args.get("from_"))


def _tables(select: exp.Select, derived: set[str]) -> Mapping[str, exp.Table]:
    """Return the tables by the name under which the query knows them."""
    tables = {}
    for part in _parts(select):
        if isinstance(part, exp.Table) and part.name not in derived:
            tables[part.alias_or_name] = exp.Table(
                this=part.this, db=part.args.get("db"), catalog=part.args.get("catalog")
            )
    return tables


def _parts(select: exp.Select) -> list[exp.Expr]:
    """Return what a SELECT reads from: tables and subqueries."""
    return [select.args["from_"].this, *(join.this for join in select.args.get("joins") or ())]


def _conditions(select: exp.Select) -> Iterator[exp.Expr]:
    where = select.args.get("where")
    wholes = [where.this] if where else []
    wholes += [join.args["on"] for join in select.args.get("joins") or () if join.args.get("on")]
    for whole in wholes:
        yield from _all_of(whole)


def _all_of(condition: exp.Expr) -> Iterator[exp.Expr]:
    """Yield the conditions that must all hold; an ORM puts them in parentheses."""
    condition = condition.unnest()
    if isinstance(condition, exp.And):
        for part in condition.flatten():
            yield from _all_of(part)
    else:
        yield condition


def _note(condition: exp.Expr, compared: Mapping[str, _Compared], dialect: str) -> str | None:
    """Note what a condition compares; return why an index could not serve it, if so."""
    if isinstance(condition, exp.Or):
        return "conditions joined by OR need an index each, or UNION"
    if isinstance(condition, exp.Like | exp.ILike):
        return _note_pattern(condition, compared, dialect)
    if isinstance(condition, exp.In):
        if isinstance(condition.this, exp.Column) and (owner := _owner(condition.this, compared)):
            compared[owner].listed[_written(condition.this, dialect)] = None
        return _note_one(condition.this, compared, dialect, ranged=False)
    if isinstance(condition, exp.Is):
        return _note_one(condition.this, compared, dialect, ranged=False)
    if isinstance(condition, exp.Between):
        return _note_one(condition.this, compared, dialect, ranged=True)
    if not isinstance(condition, _FLIPPED):
        return None
    ranged = isinstance(condition, _RANGES)
    sides = (condition.this, condition.expression)
    owners = [{_owner(one, compared) for one in side.find_all(exp.Column)} for side in sides]
    if owners[0] and owners[1]:
        if not ranged and owners[0] != owners[1]:
            for side in sides:
                if isinstance(side, exp.Column) and (owner := _owner(side, compared)):
                    compared[owner].joined[_written(side, dialect)] = None
        return None
    side = sides[0] if owners[0] else sides[1]
    return _note_one(side, compared, dialect, ranged=ranged) if any(owners) else None


def _note_one(
    side: exp.Expr, compared: Mapping[str, _Compared], dialect: str, *, ranged: bool
) -> str | None:
    side = side.unnest()
    if not isinstance(side, exp.Column):
        column = side.find(exp.Column)
        return (
            f"{_written(column, dialect)} is compared as the result of an expression"
            if column
            else None
        )
    owner = _owner(side, compared)
    if owner:
        place = compared[owner].ranged if ranged else compared[owner].equal
        place[_written(side, dialect)] = None
    return None


def _note_pattern(like: exp.Expr, compared: Mapping[str, _Compared], dialect: str) -> str | None:
    column, pattern = like.this, like.expression
    name = column.find(exp.Column)
    written = _written(name, dialect) if name else "a text"
    if isinstance(like, exp.ILike):
        return f"{written} is compared by ILIKE"
    if not (isinstance(pattern, exp.Literal) and pattern.is_string):
        return f"the pattern that {written} must be LIKE is not known"
    if _WILD.match(pattern.this):
        return f"the pattern that {written} must be LIKE begins with a wildcard"
    return _note_one(column, compared, dialect, ranged=bool(_WILD.search(pattern.this)))


def _owner(column: exp.Column, compared: Iterable[str]) -> str | None:
    """Return the table of a column: as it says, or the only one there is."""
    names = list(compared)
    if column.table:
        return column.table if column.table in names else None
    return names[0] if len(names) == 1 else None


def _written(column: exp.Column, dialect: str) -> str:
    name: str = column.this.sql(dialect)
    return name


def _is_key(column: str) -> bool:
    return column.strip('"`[]').lower() == _KEY


def _worth(of: _Compared) -> int:
    """Return what speaks for a table: values that its columns are compared with."""
    return 2 * len(of.equal) + len(of.ranged)


def _columns(of: _Compared, order: list[str]) -> list[str]:
    ranged = [one for one in of.ranged if one not in of.equal][:1]
    # What is found for several values comes one sorted run after the other.
    rest = [] if of.listed else [one for one in order if one not in of.equal]
    if ranged and rest[:1] != ranged:
        return [*of.equal, *ranged]
    return [*of.equal, *(rest or ranged)]


def _sorted_by(
    select: exp.Select, table: str, tables: Mapping[str, exp.Table], dialect: str
) -> list[str]:
    """Return the columns that rows are sorted by, if all are of a table and in one direction."""
    order = select.args.get("order")
    columns, directions = [], set()
    for one in order.expressions if order else ():
        if not isinstance(one.this, exp.Column) or _owner(one.this, tables) != table:
            return []
        columns.append(_written(one.this, dialect))
        directions.add(bool(one.args.get("desc")))
    return columns if len(directions) < 2 else []
