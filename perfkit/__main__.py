"""`python -m perfkit`: the command line where `perfkit` is not in the path."""

from perfkit.cli.main import run

if __name__ == "__main__":
    run()
