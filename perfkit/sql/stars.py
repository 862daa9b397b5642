"""`SELECT *` spelled out, so that every later check sees names of columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlglot import exp

from perfkit.sql.scopes import at, sources_of, unknown


def spell_out_stars(root: exp.Select, tables: Mapping[str, Collection[str]]) -> None:
    """Replace the stars of a query and of its common table expressions by columns, in place.

    Where two tables have a column of one name, the later one is called `alias_column`. Stars that
    mean something else (`COUNT(*)`, `* EXCEPT …`) stay for others to judge. Raises GuardError.
    """
    known = dict(tables)
    with_ = root.args.get("with_")
    for cte in with_.expressions if with_ else ():
        if isinstance(cte.this, exp.Select):
            _spell_out(cte.this, known)
            known[cte.alias] = [part.alias_or_name for part in cte.this.expressions]
    _spell_out(root, known)


def _spell_out(select: exp.Select, known: Mapping[str, Collection[str]]) -> None:
    if not any(_is_star(part) for part in select.expressions):
        return
    sources = sources_of(select, known)
    shown = [alias for alias in sources if alias not in _only_tested(select)]
    taken = {part.alias_or_name for part in select.expressions if not _is_star(part)}
    parts: list[exp.Expr] = []
    for part in select.expressions:
        if not _is_star(part):
            parts.append(part)
            continue
        alias = part.table if isinstance(part, exp.Column) else ""
        if alias and alias not in sources:
            raise at(part, *unknown("table", alias, sources))
        for one in [alias] if alias else shown:
            for column in known[sources[one]]:
                name = column if column not in taken else f"{one}_{column}"
                taken.add(name)
                found = exp.column(column, table=one if len(sources) > 1 else None)
                parts.append(found if name == column else exp.alias_(found, name))
    select.set("expressions", parts)


def _is_star(part: exp.Expr) -> bool:
    star = part.this if isinstance(part, exp.Column) else part
    return isinstance(star, exp.Star) and not any(star.args.values())


def _only_tested(select: exp.Select) -> set[str]:
    """Return the tables that a join only looks for matches in: they give no columns."""
    joins = select.args.get("joins") or ()
    tested = ("SEMI", "ANTI")
    return {join.this.alias_or_name for join in joins if (join.kind or "").upper() in tested}
