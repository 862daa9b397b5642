"""Secrets that look like tokens, masked in whatever leaves the machine: reports, alerts, gates."""

from __future__ import annotations

import re

MASK = "[masked]"

_BASE64 = r"(?=[A-Za-z0-9+/_.~-]*\d|[A-Za-z0-9+/_.~-]{32})[A-Za-z0-9+/_.~-]"
"""A character that begins base64 or hex: a digit follows, or it is long. Words are not masked."""

_ALWAYS = "password|passwd|passphrase|pwd"
_IF_LONG = (
    r"(?:secret|token|(?:api|access|private|secret)[_-]?key|signature|credential|authorization"
    r"|session[_-]?id|cookie)s?"
)
_KEY = r"(\b[\w.-]{0,40}(?:%s)[\"']?\s{0,3}[=:]\s{0,3}[\"']?)"

SECRETS: tuple[tuple[str, re.Pattern[str], str], ...] = (
    (
        "private key block (RFC 7468)",
        re.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]+-----|\Z)", re.S),
        MASK,
    ),
    (
        "bearer, basic or token credentials of an Authorization header (RFC 6750, RFC 7617)",
        re.compile(rf"\b(Bearer|Basic|Token)(\s+){_BASE64}{{8,}}=*", re.I),
        rf"\1\2{MASK}",
    ),
    (
        "JSON Web Token (RFC 7519)",
        re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*"),
        MASK,
    ),
    ("AWS access key id", re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), MASK),
    (
        "token with a vendor's prefix: GitHub, GitLab, Slack, OpenAI, Anthropic, Stripe, Google",
        re.compile(
            r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
            r"|xox[a-z]-[\w-]{10,}|sk-[\w-]{16,}|[sr]k_live_\w{16,}|AIza[\w-]{30,})"
        ),
        MASK,
    ),
    ("password in a URL", re.compile(r"(://[^\s/:@]{0,100}:)[^\s/@]{1,200}@"), rf"\1{MASK}@"),
    (
        "any value of a password but a placeholder",
        re.compile(
            _KEY % _ALWAYS + r"(?![?%:${<\[*]|(?:null|none|true|false)\b)[^\s\"'&,;)}\]]{1,200}",
            re.I,
        ),
        rf"\1{MASK}",
    ),
    (
        "long base64 or hex value of a secret, token, key, signature or cookie",
        re.compile(
            _KEY % _IF_LONG + rf"{_BASE64}{{12,}}=*",
            re.I,
        ),
        rf"\1{MASK}",
    ),
    (
        "value after a command-line flag for a secret",
        re.compile(
            r"(--?[\w-]{0,40}(?:password|passwd|secret|token|api-?key)(?:=|\s{1,3}))[^\s\[-]\S*",
            re.I,
        ),
        rf"\1{MASK}",
    ),
)
"""What is masked: (what it is, the pattern, what stands there instead)."""

ALWAYS_KEY = re.compile(_ALWAYS, re.I)
"""The name of a value that is masked whatever it is."""
IF_LONG_KEY = re.compile(_IF_LONG, re.I)
LONG_BASE64 = re.compile(rf"{_BASE64}{{12,}}", re.I)
"""The name of one that is masked when it is long, and what is long."""

# One look tells almost every text apart that cannot hold a secret.
_SUSPECT = re.compile(
    r"pass|pwd|secret|token|key|signature|credential|authorization|session|cookie|bearer|basic"
    r"|://|eyJ|AKIA|ASIA|gh[pousr]_|github_pat|glpat|xox|sk-|k_live|AIza",
    re.I,
)


def mask(text: str) -> str:
    """Return the text with secrets that look like tokens replaced by `[masked]`."""
    if not _SUSPECT.search(text):
        return text
    for _, pattern, replacement in SECRETS:
        text = pattern.sub(replacement, text)
    return text
