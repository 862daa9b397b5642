"""Where the shipped data lies: `rules/` and `report_templates/`.

In an installed wheel both are under `perfkit/data/`; in a checkout they are top-level folders.
"""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Literal

from perfkit.errors import PerfkitError

Folder = Literal["rules", "report_templates"]


def data_dir(folder: Folder) -> Path:
    """Return the directory of the shipped data called `folder`."""
    package = Path(str(importlib.resources.files("perfkit")))
    for candidate in (package / "data" / folder, package.parent / folder):
        if candidate.is_dir():
            return candidate
    raise PerfkitError(
        f"the installation is incomplete: {folder}/ is missing",
        hint="install perfkit again",
    )
