"""SQL cut into tokens quickly, where it is written plainly.

sqlglot looks at every character in Python, which was a fifth of the time of loading the rules. Here
one regular expression finds names, numbers, short texts and the common signs; SQL with anything
else is left to sqlglot. What is found is what sqlglot finds: the tests compare token by token.
"""

from __future__ import annotations

import re

from sqlglot.tokenizer_core import Token, TokenType
from sqlglot.tokens import Tokenizer

_PLAIN = re.compile(
    r"""[ ]*(?:
        (?P<name> [A-Za-z_][A-Za-z0-9_]*+ (?!["']) )
      | (?P<sign> [(),.] | (?: <> | != | [<>]=? | [-+*/=:] ) (?![-+*/=:<>!|&%]) )
      | (?P<line> \n )
      | (?P<number> [0-9]++ (?:\.[0-9]++)? (?![A-Za-z0-9_.]) )
      | ' (?P<text> [^'\n]* ) ' (?!')
      | " (?P<quoted> [A-Za-z0-9_]+ ) " (?!")
    )""",
    re.ASCII | re.VERBOSE,
)
_SECOND = re.compile(r" BY(?![A-Za-z0-9_\"'])", re.ASCII | re.IGNORECASE)
_WITH_BY = frozenset(("GROUP", "ORDER", "PARTITION"))

_KEYWORDS = Tokenizer.KEYWORDS
_SIGNS = {
    sign: Tokenizer.SINGLE_TOKENS.get(sign) or _KEYWORDS[sign]
    for sign in ("(", ")", ",", ".", "<>", "!=", "<", ">", "<=", ">=", "-", "+", "*", "/", "=", ":")
}
_LEFT = frozenset(re.split(r"\W", name)[0] for name in _KEYWORDS if re.search(r"\W", name)) | {
    name for name, kind in _KEYWORDS.items() if kind in Tokenizer.COMMANDS
}
"""Words that may begin a keyword of several parts, or a command whose rest is not parsed."""


def plain_tokens(text: str) -> list[Token] | None:
    """Return the tokens of SQL, as sqlglot gives them; None when it must be asked."""
    found: list[Token] = []
    end, size = 0, len(text.rstrip(" \n"))
    line, line_start = 1, 0
    match_at, kind_of, name_kind = _PLAIN.match, _KEYWORDS.get, TokenType.VAR
    while end < size:
        match = match_at(text, end)
        if match is None:
            return None
        group = str(match.lastgroup)
        start, end = match.start(group), match.end()
        value = match[group]
        if group == "name":
            upper = value.upper()
            kind = kind_of(upper, name_kind)
            if upper in _LEFT:
                second = _SECOND.match(text, end) if upper in _WITH_BY else None
                if second is None:
                    return None
                end = second.end()
                value = f"{upper} BY"
                kind = _KEYWORDS[value]
        elif group == "sign":
            kind = _SIGNS[value]
        elif group == "line":
            line, line_start = line + 1, end
            continue
        elif group == "number":
            kind = TokenType.NUMBER
        else:
            kind = TokenType.STRING if group == "text" else TokenType.IDENTIFIER
            start -= 1
        found.append(Token(kind, value, line, end - line_start, start, end - 1))
    return found
