"""Completion, man pages and versions."""

from __future__ import annotations

import os
import platform
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perfkit import __version__
from perfkit.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent


def run(*words: str, **more: str) -> str:
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **more},
    ).stdout


def perfkit(*words: str, **more: str) -> str:
    return run(sys.executable, "-m", "perfkit.cli", *words, **more)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("slow.perfkit", "slower [1].perfkit", "other.perfkit", "below/slow.perfkit"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "slow.txt").touch()
    return tmp_path


@pytest.mark.skipif(not (BIN / "perfkit").exists(), reason="perfkit is not installed here")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("perfkit sho", ["show"]),
        ("perfkit show --wat", ["--watch"]),
        ("perfkit show slow", ["slow.perfkit", "slower [1].perfkit"]),
        ("perfkit export slow.perfkit --format spe", ["speedscope"]),
        ("perfkit compare other.perfkit below/", ["below/slow.perfkit"]),
        ("perfkit completion z", ["zsh"]),
    ],
)
def test_bash_completes(folder: Path, line: str, expected: list[str]) -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    words = line.split()
    script = (
        'eval "$(perfkit completion bash)"\n'
        f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}\n"
        '_perfkit_completion perfkit; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    assert run("bash", "-c", script).splitlines() == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_the_same(folder: Path, shell: str) -> None:
    assert "_PERFKIT_COMPLETE" in perfkit("completion", shell)
    words = {"zsh": "perfkit show slow", "fish": "perfkit show"}[shell]
    index = {"zsh": "2", "fish": "slow"}[shell]
    answer = run(
        str(BIN / "perfkit"),
        _PERFKIT_COMPLETE=f"{shell}_complete",
        COMP_WORDS=words,
        COMP_CWORD=index,
    )
    assert "slow.perfkit" in answer
    assert "slow.txt" not in answer


@pytest.mark.real
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("perfkit sho", ["show"]),
        ("perfkit show slow", ["slow.perfkit", "slower [1].perfkit"]),
        ("perfkit show slower\\ ", ["slower [1].perfkit"]),
        ("perfkit completion z", ["zsh"]),
    ],
)
def test_fish_completes(folder: Path, line: str, expected: list[str]) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not on this machine: apt-get install fish")
    script = f"perfkit completion fish | source; complete -C {shlex.quote(line)}"
    answer = run("fish", "--no-config", "-c", script)
    found = [word.split("\t")[0] for word in answer.splitlines() if word.strip()]
    assert found == expected


@pytest.mark.real
@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("perfkit show slower", r"perfkit show slower\ \[1\].perfkit"),
        ("perfkit completion z", "perfkit completion zsh"),
    ],
)
def test_zsh_completes(folder: Path, typed: str, expected: str) -> None:
    """A real line editor: what stands in the line after the tabulator is printed by the shell."""
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not on this machine: apt-get install zsh")
    (folder / ".zshrc").write_text(
        "autoload -Uz compinit; compinit -u -D\n"
        'eval "$(perfkit completion zsh)"\n'
        'report() { print -r -- "LINE:$BUFFER:END"; exit }\n'
        "zle -N report; bindkey '^X' report\n"
        "zle-line-init() { print -r -- READY }; zle -N zle-line-init\n"
    )
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "ZDOTDIR": str(folder),
        "TERM": "dumb",
    }
    master, slave = pty.openpty()
    shell = subprocess.Popen(
        ["zsh", "-i"], stdin=slave, stdout=slave, stderr=slave, env=environment, cwd=folder
    )
    os.close(slave)
    try:
        seen = _until(master, "READY")
        os.write(master, f"{typed}\t".encode())
        os.write(master, b"\x18")
        seen += _until(master, ":END")
    finally:
        shell.kill()
        shell.wait()
        os.close(master)
    lines = re.findall(r"LINE:(.*?):END", seen)
    assert [line.strip() for line in lines] == [expected], seen


def _until(terminal: int, mark: str) -> str:
    """Read a terminal until it shows `mark`; at most a minute."""
    seen, end = "", time.monotonic() + 60
    while mark not in seen and time.monotonic() < end:
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 4096).decode(errors="replace")
    return seen


def test_where_no_capture_fits_the_shell_completes_files(folder: Path) -> None:
    answer = run(
        str(BIN / "perfkit"),
        _PERFKIT_COMPLETE="bash_complete",
        COMP_WORDS="perfkit show nothing",
        COMP_CWORD="2",
    )
    assert answer.strip() == "file,nothing"


def test_the_versions_that_matter() -> None:
    lines = perfkit("--version").splitlines()
    assert lines[0] == f"perfkit {__version__}"
    assert platform.python_version() in lines[1]
    for name in ("polars", "plotly", "py-spy"):
        assert re.search(rf"\b{name} [0-9]+\.[0-9]+", lines[3])


def test_every_command_has_a_man_page_that_roff_reads(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "tools.manpages", str(tmp_path)], cwd=ROOT, check=True)
    assert {f"perfkit-{name}.1" for name in COMMANDS} <= {one.name for one in tmp_path.iterdir()}
    page = (tmp_path / "perfkit-show.1").read_text()
    assert all(f".SH {part}" in page for part in ("NAME", "SYNOPSIS", "OPTIONS", "EXAMPLE"))
    if shutil.which("groff") is None:
        pytest.skip("no groff to read them with")
    for file in tmp_path.iterdir():
        done = subprocess.run(
            ["groff", "-k", "-man", "-Tutf8", "-wall", "-Wbreak", "-z", str(file)],
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, ""), file.name


def test_the_package_is_the_command_line() -> None:
    assert run(sys.executable, "-m", "perfkit", "--version").startswith(f"perfkit {__version__}")
