"""The commands by name, each imported where it is called for."""

from importlib import import_module

import click

# The function of each, by its module here.
COMMANDS = {
    "average": "average:average",
    "compare": "compare:compare",
    "conformance": "conformance:conformance",
    "data": "data:data",
    "decode": "invert:decode",
    "distill": "distill:distill",
    "evaluate": "evaluate:evaluate",
    "explore": "explore:explore",
    "export": "export:export",
    "guide": "study:guide",
    "inpaint": "redraw:inpaint",
    "interpolate": "interpolate:interpolate",
    "invert": "invert:invert",
    "likelihood": "likelihood:likelihood",
    "models": "models:models",
    "recommend": "recommend:recommend_setting",
    "reference": "reference:reference",
    "report": "recommend:report",
    "sample": "sample:sample",
    "study": "study:study",
    "train": "train:train",
    "trajectory": "trajectory:trajectory",
    "tune": "tune:tune",
    "vary": "redraw:vary",
}


class Commands(click.Group):
    """A group that imports the one command that is run: drawing charts takes long to import."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in alphabetical order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, if there is one."""
        if cmd_name not in COMMANDS:
            return None
        module, _, function = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f"underone.cli.{module}"), function)
        return command
