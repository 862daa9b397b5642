"""The generated pages of the documentation match the code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    # In a process of its own: click remembers the help option of a command that ran alone.
    subprocess.run([sys.executable, "-m", "tools.reference", str(folder)], cwd=ROOT, check=True)
    return folder


@pytest.mark.parametrize("name", ["tables.md", "commands.md", "perfkit.schema.json"])
def test_page_is_up_to_date(name: str, made: Path) -> None:
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert written == (made / name).read_text(encoding="utf-8"), "run: make reference"
