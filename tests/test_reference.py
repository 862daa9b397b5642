"""The generated pages of the documentation match the code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools.reference import folder_of

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    # In a process of its own: click remembers the help option of a command that ran alone.
    subprocess.run([sys.executable, "-m", "tools.reference", str(folder)], cwd=ROOT, check=True)
    return folder


def test_the_generated_pages_are_up_to_date(made: Path) -> None:
    pages = sorted(made.iterdir())
    assert "commands.md" in [page.name for page in pages]
    for page in pages:
        written = (folder_of(page.name) / page.name).read_text(encoding="utf-8")
        assert written == page.read_text(encoding="utf-8"), f"{page.name}: run: make reference"
