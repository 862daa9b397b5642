"""Plugins: code that sees every tool call before and after the tool runs."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass
class ToolCall:
    """One call on its way through the gateway."""

    tool: str
    caller: str
    arguments: dict[str, Any]
    result: str = ""
    notes: list[str] = field(default_factory=list)


class Plugin(Protocol):
    """What a plugin offers; either method may do nothing."""

    name: str

    def before(self, call: ToolCall) -> None:
        """See, and perhaps change, the arguments."""

    def after(self, call: ToolCall) -> None:
        """See, and perhaps change, the result."""


class RedactEmail:
    """Replaces e-mail addresses in what goes in and what comes out."""

    name = "redact-email"
    _ADDRESS = re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+")

    def before(self, call: ToolCall) -> None:
        """Redact the arguments that are text."""
        for name, value in call.arguments.items():
            if isinstance(value, str):
                call.arguments[name] = self._ADDRESS.sub("[e-mail]", value)

    def after(self, call: ToolCall) -> None:
        """Redact the result."""
        call.result = self._ADDRESS.sub("[e-mail]", call.result)


class Transcript:
    """Keeps what was called and answered, for the support team.

    The problem `leak`: nothing is ever forgotten.
    """

    name = "transcript"
    KEPT = 20
    LEAK_LIMIT = 4_000
    """Even the leak ends here (at about 400 MB), so that a forgotten demo harms nobody."""

    def __init__(self, problems: Collection[str]) -> None:
        limit = self.LEAK_LIMIT if "leak" in problems else self.KEPT
        self.entries: deque[bytes] = deque(maxlen=limit)

    def before(self, call: ToolCall) -> None:
        """Do nothing: the transcript is written when the result is known."""

    def after(self, call: ToolCall) -> None:
        """Add an entry of fixed size, as the support team's viewer wants it."""
        entry = json.dumps([call.caller, call.tool, call.arguments, call.result]).encode()
        self.entries.append(entry.ljust(96 * 1024, b" "))
