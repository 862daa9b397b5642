"""`python -m perfkit.cli`."""

from perfkit.cli.main import run

run()
