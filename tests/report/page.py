"""A report as a test sees it: elements by tag, scripts, policy, and the unpacked data."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

from tests.report.unpack import unpack

INERT = "application/octet-stream"


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.html = html
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.blocks: dict[str, str] = {}
        self.text: list[str] = []
        self._open: str | None = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag in ("script", "style"):
            self._open = tag
            if attributes.get("type") == INERT:
                self._open = attributes["id"]
            elif tag == "script":
                self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            self.scripts[-1] += data
        elif self._open and self._open != "style":
            self.blocks[self._open] = self.blocks.get(self._open, "") + data
        elif self._open is None:
            self.text.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._open = None

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def policy(self) -> dict[str, list[str]]:
        (meta,) = [a for a in self.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
        directives = (part.split() for part in (meta["content"] or "").split(";"))
        return {name: values for name, *values in directives}

    @property
    def data(self) -> Any:
        return unpack(self.blocks["perfkit-data"])

    @property
    def plotly(self) -> str:
        return gzip.decompress(base64.b64decode(self.blocks["perfkit-plotly"])).decode("utf-8")


def digest(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
