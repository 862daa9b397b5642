"""`perfkit completion`: what a shell needs to complete commands, options and capture names."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")


@click.command(epilog="Example: perfkit completion fish > ~/.config/fish/completions/perfkit.fish")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the script that makes SHELL complete perfkit: commands, options, captures.

    \b
    bash   in ~/.bashrc:  eval "$(perfkit completion bash)"
    zsh    in ~/.zshrc:   eval "$(perfkit completion zsh)"
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    # Not through `source`, which asks for the version of bash: the script may be for elsewhere.
    complete = kind(root, {}, "perfkit", "_PERFKIT_COMPLETE")
    click.echo(complete.source_template % complete.source_vars())
