"""Commands as documents show them."""

import shlex

import click

from underone.cli import underone_command


def assert_understood(line: str) -> None:
    """The command exists, and has the options it is shown with."""
    _, *arguments = shlex.split(line.partition(" > ")[0], comments=True)
    # Where there is no GPU the option is refused for that.
    arguments = ["cpu" if argument == "cuda" else argument for argument in arguments]
    command: click.Command = underone_command
    context = click.Context(command)
    while isinstance(command, click.Group):
        name, *arguments = arguments
        found = command.get_command(context, name)
        assert found is not None, name
        command = found
        context = command.make_context(name, arguments, parent=context)
    assert not context.args
