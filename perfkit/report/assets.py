"""Styles and scripts of the page, and the policy that lets only these scripts run."""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.util
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from perfkit.errors import PerfkitError
from perfkit.resources import data_dir

_PLOTLY = "plotly-perfkit.min.js"
_THEME = "theme.js"
_STYLES = "styles.css"
ORDER = (
    "format",
    "dom",
    "data",
    "filter",
    "tree",
    "derive",
    "table",
    "flame_layout",
    "flame_draw",
    "flame_stage",
    "flame_sandwich",
    "flame_top",
    "flame_compare",
    "flame_sides",
    "flame_changes",
    "flame_export",
    "flame_subsecond",
    "flame_chronology",
    "flame_view",
    "populations",
    "population_sums",
    "node_sums",
    "time_axis",
    "waterfall",
    "timeline",
    "heatmap",
    "calendar",
    "what_if",
    "request_facts",
    "slow_groups",
    "filter_bar",
    "sections",
    "shortcuts",
    "live_table",
    "section_*",
    "app",
)
"""Stems of the scripts at the end of the body, in the order in which they run."""


@dataclass(frozen=True)
class Assets:
    """What is inlined: `theme` runs before the first paint, `scripts` at the end of the body."""

    styles: str
    theme: str
    scripts: tuple[str, ...]
    plotly: str

    @cached_property
    def plotly_packed(self) -> str:
        """Plotly as gzip and base64; the page unpacks it into an inline script."""
        return base64.b64encode(gzip.compress(self.plotly.encode(), 9, mtime=0)).decode("ascii")

    @cached_property
    def policy(self) -> str:
        """The Content-Security-Policy: these scripts, inline styles, images made by the page."""
        hashes = " ".join(
            f"'sha256-{_digest(script)}'" for script in (self.theme, *self.scripts, self.plotly)
        )
        return (
            f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
            "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
        )


def load() -> Assets:
    """Read the shipped assets. Raises PerfkitError when the installation lacks them."""
    folder = data_dir("report_templates") / "assets"
    styles = sorted(folder.glob("*.css"), key=lambda path: (path.name != _STYLES, path.name))
    scripts = [path for stem in ORDER for path in sorted(folder.glob(f"{stem}.js"))]
    return Assets(
        styles="".join(_read(path) for path in styles),
        theme=_read(folder / _THEME),
        scripts=tuple(_read(path) for path in scripts),
        plotly=_plotly(folder / _PLOTLY),
    )


def _plotly(bundle: Path) -> str:
    """Return the small bundle made at release time, else the one of the package `plotly`."""
    if bundle.is_file():
        return _read(bundle)
    package = importlib.util.find_spec("plotly")
    if package is None or package.origin is None:
        raise PerfkitError("Plotly is missing", hint="install perfkit again")
    return _read(Path(package.origin).parent / "package_data" / "plotly.min.js")


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise PerfkitError(
            f"the installation is incomplete: {path.name} cannot be read ({error.strerror})",
            hint="install perfkit again",
        ) from error
    # A browser hashes what its parser made of the text, and that has neither BOM nor CR.
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
