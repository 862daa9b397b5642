"""Which SELECTs can be asked of some traces at a time, and how the answers become one.

A table is *divided* where each row belongs to one part. Its columns `row` and `…_row` name rows
of the same part: they are its links. A SELECT whose divided tables are joined by links, and which
groups by a link or not at all, says of all parts what it says of each, one after the other. One
that groups by something else is asked for its sums by part, and they are summed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from sqlglot import exp

from perfkit.sql.checked import Stage
from perfkit.sql.nodes import children
from perfkit.sql.scopes import join_keys

PARTS = "all parts"
"""What the second SELECT of `Apart` reads: no query can call a table so."""

Links = Mapping[str, Collection[str]]
"""Divided table or stage -> its links."""

_PLAIN = (exp.Sum, exp.Min, exp.Max)
_OTHER = (exp.AggFunc, exp.Anonymous, exp.Window, exp.Distinct, exp.ArrayAgg, exp.First, exp.Last)


@dataclass(frozen=True)
class Key:
    """The link by which groups or windows are made. Rows without it are of no part."""

    table: str
    column: str
    rest: exp.Select
    """Asks for the rows without it, of all parts at once."""


@dataclass(frozen=True)
class Apart:
    """How a SELECT is asked of parts."""

    each: exp.Select
    """Asked of every part."""
    links: frozenset[str] = frozenset()
    """Which columns of the answers are links."""
    key: Key | None = None
    """None where no row can be of no part."""
    together: exp.Select | None = None
    """Asked of all answers; None where they are the answer, one after the other."""


class _Whole(Exception):
    """It can only be asked of everything at once."""


def apart(stage: Stage, columns: Mapping[str, Collection[str]], links: Links) -> Apart | None:
    """Return how a stage is asked of parts; None where it cannot be.

    `columns` are those of all tables and earlier stages that it reads.
    """
    try:
        return _Asked(stage, columns, links).apart()
    except _Whole:
        return None


class _Asked:
    """A stage, and what its names mean."""

    def __init__(self, stage: Stage, columns: Mapping[str, Collection[str]], links: Links) -> None:
        self._select, self._sources = stage.select, stage.sources
        self._columns, self._links = columns, links
        divided = [name for name in stage.reads if name in links]
        mine = [name for name in stage.sources.values() if name in links]
        if not mine or len(divided) > len(mine) or stage.select.args.get("distinct"):
            raise _Whole
        self._optional: set[str] = set()
        """Sources of which a row may lack."""
        self._sure: set[tuple[str, str]] = set()
        """Links that are not null in any row of the join."""
        self._look_at_joins()

    def apart(self) -> Apart:
        select = self._select
        nodes = list(_own(select))
        windows = [node for node in nodes if isinstance(node, exp.Window)]
        group = select.args.get("group")
        by = list(group.expressions) if group else []
        sums = any(isinstance(node, exp.AggFunc | exp.Anonymous) for node in nodes) and not windows
        if (by or sums) and windows:
            raise _Whole
        candidates = [self._links_in(one.args.get("partition_by") or []) for one in windows]
        if by:
            candidates.append(self._links_in(by))
        if not by and not windows:
            candidates.append([])
        common = [one for one in candidates[0] if all(one in other for other in candidates)]
        if (by or windows) and not common:
            return self._summed(by)
        if sums and not by:
            return self._summed(by)
        if select.args.get("order") or select.args.get("limit"):
            raise _Whole
        named = self._named()
        if not common:
            return Apart(select, named)
        sure = [one for one in common if one in self._sure]
        if sure:
            return Apart(select, named)
        alias, column = common[0]
        link = exp.column(column, table=alias)
        null = exp.Is(this=link, expression=exp.Null())
        key = Key(self._sources[alias], column, select.where(null))
        return Apart(select.where(exp.not_(null.copy())), named, key)

    def _look_at_joins(self) -> None:
        select = self._select
        seen = [select.args["from_"].this.alias_or_name]
        divided = self._sources[seen[0]] in self._links
        where = select.args.get("where")
        for part in _conjuncts(where.this if where else None):
            if isinstance(part, exp.Not) and isinstance(part.this.unnest(), exp.Is):
                known = part.this.unnest()
                link = self._link(known.this)
                if link and isinstance(known.expression, exp.Null):
                    self._sure.add(link)
        for join in select.args.get("joins") or ():
            alias, on = join.this.alias_or_name, join.args.get("on")
            kind = " ".join(part for part in (join.side, join.kind) if part).upper()
            inner = kind in ("", "INNER")
            if not inner:
                self._optional.add(alias)
            if self._sources[alias] in self._links:
                linked = [
                    ((one.source, one.column), (alias, one.joined_column))
                    for one in (join_keys(on, alias, seen) if on is not None else ())
                    if one.column in self._links.get(self._sources[one.source], ())
                    and one.joined_column in self._links[self._sources[alias]]
                ]
                # Parts of a table may meet any row of one that is not divided, but must all be met.
                if (divided and not linked) or (not divided and not inner):
                    raise _Whole
                if inner:
                    self._sure |= {end for ends in linked for end in ends}
                divided = True
            seen.append(alias)

    def _link(self, node: exp.Expr) -> tuple[str, str] | None:
        """Return source and column of a column that is a link of a source."""
        if not isinstance(node, exp.Column):
            return None
        if node.table:
            offering = [node.table]
        else:
            offering = [
                alias for alias, name in self._sources.items() if node.name in self._columns[name]
            ]
        if len(offering) != 1:
            return None
        found = node.name in self._links.get(self._sources[offering[0]], ())
        return (offering[0], node.name) if found else None

    def _links_in(self, nodes: list[exp.Expr]) -> list[tuple[str, str]]:
        found = [self._link(node.unnest()) for node in nodes]
        return [one for one in found if one and one[0] not in self._optional]

    def _named(self) -> frozenset[str]:
        """Return which columns of the result are links."""
        found = set()
        for part in self._select.expressions:
            value = part.unalias()
            if isinstance(value, exp.Min | exp.Max):
                value = value.this
            if self._link(value):
                found.add(part.alias_or_name)
        return frozenset(found)

    def _summed(self, by: list[exp.Expr]) -> Apart:
        """Return how sums by part are asked for, and summed."""
        select = self._select
        for node in by:
            for column in node.find_all(exp.Column):
                offered = column.table or any(
                    column.name in self._columns[name] for name in self._sources.values()
                )
                if not offered:
                    raise _Whole
        sums = _Sums(self, by, {part.alias_or_name for part in select.expressions})
        expressions = [
            exp.alias_(sums.of(part.unalias()), part.alias_or_name, quoted=True)
            for part in select.expressions
        ]
        together = exp.Select(
            expressions=expressions,
            from_=exp.From(this=exp.Table(this=exp.to_identifier(PARTS, quoted=True))),
        )
        if by:
            names = [sums.group(number) for number in range(len(by))]
            together.set("group", exp.Group(expressions=names))
        if having := select.args.get("having"):
            together.set("having", exp.Having(this=sums.of(having.this)))
        if order := select.args.get("order"):
            ordered = [
                exp.Ordered(**{**one.copy().args, "this": sums.of(one.this, ordering=True)})
                for one in order.expressions
            ]
            together.set("order", exp.Order(expressions=ordered))
        if limit := select.args.get("limit"):
            together.set("limit", limit.copy())
        each = select.copy()
        for what in ("having", "order", "limit"):
            each.set(what, None)
        each.set("expressions", sums.asked())
        return Apart(each, together=together)

    def sums_up(self, node: exp.Distinct) -> bool:
        """Whether different values in parts are different: links, or links under a condition."""
        if len(node.expressions) != 1:
            return False
        (value,) = node.expressions
        if isinstance(value, exp.Case) and not value.args.get("default"):
            return all(self._link(one.args["true"]) for one in value.args["ifs"])
        return self._link(value) is not None


class _Sums:
    """What is asked of each part for a SELECT that sums over all."""

    def __init__(self, asked: _Asked, by: list[exp.Expr], aliases: Collection[str]) -> None:
        self._asked, self._aliases = asked, aliases
        self._by = {_text(node): number for number, node in enumerate(by)}
        self._groups = by
        self._parts: dict[str, exp.Expr] = {}

    @staticmethod
    def group(number: int) -> exp.Column:
        return exp.column(f"group {number}", quoted=True)

    def asked(self) -> list[exp.Expr]:
        """Return what each part is asked for."""
        groups = [
            exp.alias_(node.copy(), f"group {number}", quoted=True)
            for number, node in enumerate(self._groups)
        ]
        parts = enumerate(self._parts.values())
        return groups + [exp.alias_(node, f"part {number}", quoted=True) for number, node in parts]

    def of(self, node: exp.Expr, *, ordering: bool = False) -> exp.Expr:
        """Return an expression of the SELECT as one over what parts answered."""
        named = isinstance(node, exp.Column) and not node.table and node.name in self._aliases
        if named and ordering:
            return node.copy()
        number = self._by.get(_text(node))
        if number is not None:
            return self.group(number)
        if isinstance(node, exp.Subquery) or named:
            return node.copy()
        if isinstance(node, exp.Column):
            raise _Whole
        if isinstance(node, _PLAIN) and not isinstance(node.this, exp.Distinct):
            return type(node)(this=self._part(node))
        if isinstance(node, exp.Count):
            if isinstance(node.this, exp.Distinct) and not self._asked.sums_up(node.this):
                raise _Whole
            return exp.Sum(this=self._part(node))
        if isinstance(node, exp.Avg) and not isinstance(node.this, exp.Distinct):
            total = exp.Sum(this=self._part(exp.Sum(this=node.this.copy())))
            count = exp.Sum(this=self._part(exp.Count(this=node.this.copy())))
            mean = exp.Div(
                this=exp.Cast(this=total, to=exp.DataType.build("DOUBLE")), expression=count
            )
            some = exp.GT(this=count.copy(), expression=exp.Literal.number(0))
            return exp.paren(exp.Case(ifs=[exp.If(this=some, true=mean)]))
        if isinstance(node, _OTHER):
            raise _Whole
        copied = node.copy()
        for old, new in zip(children(node), children(copied), strict=True):
            if not isinstance(old, exp.Identifier | exp.DataType):
                new.replace(self.of(old, ordering=ordering))
        return copied

    def _part(self, node: exp.Expr) -> exp.Column:
        text = _text(node)
        self._parts.setdefault(text, node.copy())
        return exp.column(f"part {list(self._parts).index(text)}", quoted=True)


def _text(node: exp.Expr) -> str:
    return node.unnest().sql(comments=False)


def _conjuncts(node: exp.Expr | None) -> list[exp.Expr]:
    if node is None:
        return []
    found = node.flatten() if isinstance(node, exp.And) else (node,)
    return [one.unnest() for one in found]


def _own(select: exp.Select) -> Iterator[exp.Expr]:
    """Yield the parts of a SELECT, not those of SELECTs inside of it."""
    todo = children(select)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, exp.Subquery):
            todo += children(node)
