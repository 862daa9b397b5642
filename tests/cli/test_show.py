from __future__ import annotations

import pytest
from click.testing import CliRunner

from perfkit.cli.main import main
from tests.report.build import write_capture


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> str:
    capture = write_capture(tmp_path_factory.mktemp("show") / "small.perfkit")
    result = CliRunner().invoke(main, ["show", str(capture)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_the_answer_comes_first_and_fits_80_columns(shown: str) -> None:
    lines = shown.splitlines()
    assert lines.index("WHAT TO DO FIRST") < 5
    *answer, command = lines  # a command to copy is not folded
    assert command.startswith("All of it, with flame graphs: perfkit report ")
    assert max(len(line) for line in answer) <= 80


def test_savings_that_do_not_add_up_are_said_to_be_the_same_time(shown: str) -> None:
    assert "Mostly the same time as 1 saves." in shown
