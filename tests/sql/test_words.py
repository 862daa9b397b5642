"""SQL is cut quickly into the tokens that sqlglot would cut it into."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st
from sqlglot.errors import TokenError
from sqlglot.tokenizer_core import Token

from perfkit.resources import data_dir
from perfkit.rules import document
from perfkit.sql.words import plain_tokens
from perfkit.sql.write import Engine

Shown = list[tuple[object, ...]]


def shown(found: list[Token] | None) -> Shown:
    names = ("token_type", "text", "line", "col", "start", "end", "comments")
    return [tuple(getattr(one, name) for name in names) for one in found or ()]


def test_queries_of_shipped_rules_are_cut_as_sqlglot_does() -> None:
    slow = []
    paths = sorted(data_dir("rules").rglob("*.yaml"))
    for path in paths:
        top = document.read(path, without="tests").value
        assert isinstance(top, dict)
        text = str(top["query"].value)
        found = plain_tokens(text)
        if found is None:
            slow.append(path.stem)
        else:
            assert shown(found) == shown(Engine().tokenize(text)), path.stem
    assert len(slow) < len(paths) / 10, slow


_PIECES = (
    *("a", "row", "Count", "GROUP BY", "group", "order by", "ORDER  BY", "BY", "foreign"),
    *("FOREIGN KEY", "user", "-defined", "show", "show tables", "fetch", "double", "precision"),
    *("x'00'", "'it''s'", "'a'", "'", '"count"', '""', '"', "`", "N'a'", "e'\\n'", "r'a'"),
    *("1", "1.5", "1.", ".5", "1e9", "0x1f", "1a", "9_0", "<", ">", "<=", "<=>", "<>", "!="),
    *("=", "==", "=>", "-", "--", "->", "/", "/*", "*/", "*", ":", ":p", "::", ":=", "+", "%"),
    *("(", ")", ",", ".", ";", "||", "&&", "@", "@a", "#", "$1", "$$a$$", "?", "{", "{{", "}"),
    *(" ", "  ", "\n", "\n  ", "\t", "\r\n", "é", "\u00a0", "_", "\\", "[", "]", "~"),
)


def check(text: str) -> bool:
    found = plain_tokens(text)
    if not found:
        return False
    try:
        assert shown(found) == shown(Engine().tokenize(text)), text
    except TokenError:
        raise AssertionError(f"sqlglot refuses {text!r}") from None
    return True


def test_pieces_side_by_side_are_cut_as_sqlglot_does_or_left_to_it() -> None:
    checked = [
        check(one + between + two)
        for one, two in product(_PIECES, repeat=2)
        for between in ("", " ")
    ]
    assert sum(checked) > 1000


@given(st.lists(st.sampled_from(_PIECES), max_size=8).map("".join))
def test_longer_texts_too(text: str) -> None:
    check(text)
