"""Names inside a checked query: which table or stage a column comes from, and how joins match."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from sqlglot import exp

from perfkit.sql.checked import JoinKey, Part, Stage
from perfkit.sql.nodes import children

MAX_JOINS = 6

_Needs = dict[str, set[str]]

_JOINS = frozenset(("", "LEFT", "INNER", "SEMI", "LEFT SEMI", "ANTI", "LEFT ANTI"))
_LEAVES = (exp.Identifier, exp.Literal)
_SEES_ALIASES = (exp.Group, exp.Order, exp.Having, exp.Qualify)


class GuardError(Exception):
    """The SQL is refused; line and column count from 1 inside its text."""

    def __init__(
        self, message: str, line: int = 1, column: int = 1, *, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.line, self.column, self.hint = line, column, hint


@dataclass
class _Scope:
    """A SELECT, and the columns that are named in it, not in a SELECT inside of it."""

    select: exp.Select
    columns: list[tuple[exp.Column, bool]]
    """With whether the place sees the names that the SELECT gives."""


def stage(name: str, select: exp.Select, known: Mapping[str, Collection[str]]) -> Stage:
    """Check the names and joins of one SELECT over what is `known` so far. Raises GuardError."""
    sources = sources_of(select, known)
    joins = tuple(_joins(select))
    aliases = [part.alias_or_name for part in select.expressions]
    for part, alias in zip(select.expressions, aliases, strict=True):
        if not alias or not isinstance(part, exp.Alias | exp.Column):
            raise at(part, f"give the expression {part.sql()[:60]} a name with AS")
        if aliases.count(alias) > 1:
            raise at(part, f"two columns are called {alias}")
    if not sources:
        raise GuardError("SELECT without FROM")
    (own, *subqueries), reads = _scopes(select)
    needs: _Needs = {}
    _check_columns(own, sources, known, needs)
    for scope in subqueries:
        inner = scope.select
        if inner.args.get("joins") or inner.args.get("with_"):
            raise at(inner, "a subquery must be plain", "use WITH name AS (…) before the SELECT")
        _check_columns(scope, sources_of(inner, known), known, needs)
    needed = {table: frozenset(columns) for table, columns in needs.items()}
    return Stage(name, Part(select), sources, joins, tuple(aliases), tuple(reads), needed)


def _scopes(select: exp.Select) -> tuple[list[_Scope], list[str]]:
    """Return a SELECT and those inside of it as scopes, and the tables that they name.

    One walk instead of one for each question: it is half of what checking names takes.
    """
    found = [_Scope(select, [])]
    reads: list[str] = []
    todo: list[tuple[exp.Expr, _Scope, bool]] = [(select, found[0], False)]
    while todo:
        node, scope, sees_aliases = todo.pop()
        if isinstance(node, exp.Column):
            scope.columns.append((node, sees_aliases))
            continue
        if isinstance(node, _LEAVES):
            continue
        if isinstance(node, exp.Table):
            reads.append(node.name)
            continue
        if isinstance(node, exp.Select) and node is not select:
            scope, sees_aliases = _Scope(node, []), False
            found.append(scope)
        sees_aliases = sees_aliases or isinstance(node, _SEES_ALIASES)
        todo += [(child, scope, sees_aliases) for child in reversed(children(node))]
    return found, reads


def sources_of(select: exp.Select, known: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Return alias -> table of FROM and the joins."""
    from_ = select.args.get("from_")
    parts = [from_.this] if from_ else []
    parts += [join.this for join in select.args.get("joins") or ()]
    if len(parts) > MAX_JOINS + 1:
        raise GuardError(f"more than {MAX_JOINS} joins")
    sources: dict[str, str] = {}
    for part in parts:
        if not isinstance(part, exp.Table) or not isinstance(part.this, exp.Identifier):
            raise at(part, f"{describe(part.this or part)} is not a table")
        if part.name not in known:
            raise at(part, *unknown("table", part.name, known))
        if part.alias_or_name in sources:
            raise at(part, f"the name {part.alias_or_name} is used twice")
        sources[part.alias_or_name] = part.name
    return sources


def _joins(select: exp.Select) -> Iterator[tuple[JoinKey, ...]]:
    seen = [select.args["from_"].this.alias_or_name] if select.args.get("from_") else []
    for join in select.args.get("joins") or ():
        alias = join.this.alias_or_name
        kind = " ".join(part for part in (join.side, join.kind) if part).upper()
        on = join.args.get("on")
        if kind not in _JOINS:
            raise at(join.this, f"{kind} JOIN is not allowed")
        keys = tuple(join_keys(on, alias, seen)) if on is not None else ()
        if not keys:
            raise at(
                join.this,
                f"the join with {alias} compares no column of both sides",
                f"write for example: ON {seen[0]}.row = {alias}.row",
            )
        seen.append(alias)
        if not kind.endswith(("SEMI", "ANTI")):
            yield keys


def join_keys(on: exp.Expr, joined: str, seen: Collection[str]) -> Iterator[JoinKey]:
    """Yield the equalities of a join with a column of each side."""
    for part in on.flatten() if isinstance(on, exp.And) else (on,):
        equality = part.unnest()
        if not isinstance(equality, exp.EQ):
            continue
        sides = [equality.this, equality.expression]
        if not all(isinstance(side, exp.Column) for side in sides):
            continue
        other, own = sides if sides[1].table == joined else sides[::-1]
        if own.table == joined and other.table in seen:
            yield JoinKey(other.table, other.name, joined, own.name)


def _check_columns(
    scope: _Scope, sources: Mapping[str, str], known: Mapping[str, Collection[str]], needs: _Needs
) -> None:
    """Refuse names that no source has; add to `needs` which columns of which table may be meant."""
    among = set(sources.values())
    for table in among:
        needs.setdefault(table, set())
    offered = {column for table in among for column in known[table]}
    aliases = {part.alias for part in scope.select.expressions if isinstance(part, exp.Alias)}
    for column, sees_aliases in scope.columns:
        name, alias = column.name, column.table
        if alias:
            if alias not in sources:
                raise at(column, *unknown("table", alias, sources))
            table = sources[alias]
            if name not in known[table]:
                raise at(column, *unknown(f"column of {alias}", name, known[table]))
            needs[table].add(name)
        elif name in offered:
            for table in among:
                if name in known[table]:
                    needs[table].add(name)
        elif not (sees_aliases and name in aliases):
            raise at(column, *unknown("column", name, offered | aliases))


def describe(node: exp.Expr) -> str:
    """Return what a part of SQL is called in an error message."""
    if isinstance(node, exp.Anonymous):
        return f"the function {node.name}"
    if isinstance(node, exp.Func):
        return f"the function {node.sql_name()}"
    return node.key.upper()


def unknown(what: str, name: str, among: Collection[str]) -> tuple[str, str]:
    """Return the message that a name is unknown, and a hint at what was probably meant."""
    import difflib

    close = difflib.get_close_matches(name, sorted(among), n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(among)[:40])}"
    return f"unknown {what} {name}", hint


def at(node: exp.Expr, message: str, hint: str | None = None) -> GuardError:
    """Return the error with the place of the first name inside the node."""
    for part in node.walk():
        if "line" in part.meta:
            line = part.meta["line"]
            column = part.meta["col"] - (part.meta["end"] - part.meta["start"])
            return GuardError(message, line, max(1, column), hint=hint)
    return GuardError(message, hint=hint)
