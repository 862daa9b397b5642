"""SQL that the guard let pass: names and columns at hand, trees and texts when asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from sqlglot import exp

from perfkit.sql.write import Value, both_sql


@dataclass(frozen=True)
class Texts:
    """A part of SQL as it was written for Polars with some values of the parameters in it."""

    params: Mapping[str, Value]
    plain: str
    wide: str

    def fit(self, params: Mapping[str, Value]) -> bool:
        """Whether these are the texts for other values, too: 1 and 1.0 are not the same."""
        return all(
            name in params and (type(params[name]), params[name]) == (type(value), value)
            for name, value in self.params.items()
        )


class Part:
    """One SELECT or expression. What it is made with must have passed the guard."""

    def __init__(
        self, tree: exp.Expr | Callable[[], exp.Expr], texts: Sequence[Texts] = ()
    ) -> None:
        self._tree, self._texts = tree, texts

    @cached_property
    def tree(self) -> exp.Expr:
        """Return the tree. Nobody changes it."""
        return self._tree if isinstance(self._tree, exp.Expr) else self._tree()

    def both_sql(self, params: Mapping[str, Value]) -> tuple[str, str]:
        """Return the SQL for Polars as `write.both_sql` does."""
        for texts in self._texts:
            if texts.fit(params):
                return texts.plain, texts.wide
        return both_sql(self.tree, params)


@dataclass(frozen=True)
class JoinKey:
    """One equality of a join: a column of an earlier source and one of the joined source."""

    source: str
    column: str
    joined: str
    joined_column: str


@dataclass(frozen=True)
class Stage:
    """One SELECT of a query; `name` is that of the common table expression, or empty."""

    name: str
    part: Part
    sources: Mapping[str, str]
    """Alias -> table or earlier stage."""
    joins: tuple[tuple[JoinKey, ...], ...]
    """Each join that can multiply rows, by its equalities, in order."""
    columns: tuple[str, ...]
    reads: tuple[str, ...]
    """The tables and earlier stages that it and its subqueries name, in order."""
    needs: Mapping[str, frozenset[str]]
    """Table or earlier stage -> the columns of it that may be meant."""

    @property
    def select(self) -> exp.Select:
        """Return its tree."""
        tree = self.part.tree
        assert isinstance(tree, exp.Select)
        return tree


@dataclass(frozen=True)
class Query:
    """A checked query: its stages in the order in which they run."""

    text: str
    stages: tuple[Stage, ...]
    params: frozenset[str]
    """The parameters that it names."""
    ordered: bool
    """Whether the same tables always give the same rows in the same order: it is sorted, or all
    of its columns are sums over everything."""

    @property
    def tables(self) -> tuple[str, ...]:
        """Return the known tables that it reads, in order of appearance."""
        named = {one.name for one in self.stages}
        read = (name for one in self.stages for name in one.reads)
        return tuple(dict.fromkeys(name for name in read if name not in named))

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns of the result."""
        return self.stages[-1].columns


@dataclass(frozen=True)
class Expression:
    """A checked expression over the columns of one row."""

    part: Part
    text: str = ""
    """Empty where it was not written as text."""
    columns: frozenset[str] = field(default_factory=frozenset)
    params: frozenset[str] = field(default_factory=frozenset)

    @property
    def tree(self) -> exp.Expr:
        """Return its tree."""
        return self.part.tree
