"""Text from outside, made fit for a page that people attach to tickets.

Three steps, in this order: secrets that look like tokens are masked, characters that a reader
cannot see or that turn the text around are written out, and very long text is cut with a note.
HTML escaping is not done here: Jinja does it for the templates, `textContent` for the scripts.
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any

from perfkit.masking import ALWAYS_KEY, IF_LONG_KEY, LONG_BASE64, MASK, mask

LIMIT = 20_000
"""Characters of one text that a report carries; the capture has the rest."""

_BEYOND = 2_000
_SHORT = 200
"""Characters of a text that comes again and again: names and values of attributes."""
_MEMBERS = 100

# C0 and C1 controls (tab and line feed stay), bidirectional controls, invisible characters, line
# and paragraph separators, interlinear annotations, tag characters, and lone surrogates.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """Return the text with control, direction and invisible characters written as `\\u202e`."""
    return _UNSEEN.sub(_written_out, text)


def _written_out(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def clean(text: str) -> str:
    """Mask, make visible and cut one text from outside."""
    return _clean_often(text) if len(text) <= _SHORT else _clean(text)


@functools.lru_cache(20_000)
def _clean_often(text: str) -> str:
    return _clean(text)


def _clean(text: str) -> str:
    full = len(text)
    # So much is looked at that a secret which the cut tears apart is still masked from its start.
    text = visible(mask(text[: LIMIT + _BEYOND]))
    if full <= LIMIT and len(text) <= 2 * LIMIT:
        return text
    return f"{text[:LIMIT]} … (cut: {LIMIT:,} of {full:,} characters; the capture has all of it)"


class Clean(str):
    """Text that is clean already, and would only be spoilt by a second look: JSON, say."""

    __slots__ = ()


def clean_all(value: Any) -> Any:
    """Return JSON-able data with every text in it cleaned, dictionary keys included.

    In a dictionary the key tells a secret too: `{"password": "two words"}` is masked whole.
    """
    if isinstance(value, str):
        return value if isinstance(value, Clean) else clean(value)
    if isinstance(value, dict):
        return {clean(str(key)): _clean_item(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean_all(item) for item in value]
    return value


def _clean_item(key: str, item: Any) -> Any:
    always, if_long = _secrecy(key[:_BEYOND])
    if always and isinstance(item, str | int | float) and item:
        return MASK
    if if_long and isinstance(item, str) and LONG_BASE64.search(item[:LIMIT]):
        return MASK
    return clean_all(item)


@functools.lru_cache(5_000)
def _secrecy(name: str) -> tuple[bool, bool]:
    """Return whether what has a name is secret, and whether it is where it looks like a token."""
    return ALWAYS_KEY.search(name) is not None, IF_LONG_KEY.search(name) is not None


def clean_json(text: str) -> Clean:
    """Clean the values inside JSON text, so that it stays JSON; other text becomes a JSON string.

    When the whole is very long, so is none of its values: each is cut to a few hundred characters.
    """
    try:
        content = clean_all(json.loads(text))
    except (ValueError, RecursionError):
        content = clean(text)
    whole = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    if len(whole) > 2 * LIMIT and isinstance(content, dict):
        short = {key[:200]: _shortened(item) for key, item in list(content.items())[:_MEMBERS]}
        if len(content) > _MEMBERS:
            short["…"] = f"{len(content) - _MEMBERS:,} more attributes; the capture has them"
        whole = json.dumps(short, ensure_ascii=False, separators=(",", ":"))
    return Clean(whole)


def _shortened(item: Any) -> str:
    text = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]} … ({len(text):,} characters)"
