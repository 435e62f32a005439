"""All commands, by what they are for; each is imported when it is run."""

from dataclasses import dataclass
from importlib import import_module

import click

from underone.errors import unknown


@dataclass(frozen=True)
class Listed:
    """A command as the list shows it; `function` is module:name, the module one of this package."""

    function: str
    summary: str

    def load(self) -> click.Command:
        """The command itself."""
        module, _, name = self.function.partition(":")
        command: click.Command = getattr(import_module(f"underone.cli.{module}"), name)
        return command


GROUPS = {
    "Answers": {
        "guide": Listed("study:guide", "Compare samplers, steps and guidance on a model."),
        "study": Listed("study:study", "Run or continue a study of your own design."),
        "recommend": Listed("recommend:recommend_setting", "Find a study's best setting."),
        "report": Listed("recommend:report", "Write the report of a study anew."),
        "explore": Listed("explore:explore", "Try two settings live on a web page."),
    },
    "Training": {
        "train": Listed("train:train", "Train a model, a classifier or a VAE by a recipe."),
        "tune": Listed("tune:tune", "Learn a sampler of few steps for a model."),
        "distill": Listed("distill:distill", "Teach a copy of a model to sample in few steps."),
        "average": Listed("average:average", "Change the width of the moving average."),
    },
    "Sampling": {
        "sample": Listed("sample:sample", "Draw samples."),
        "trajectory": Listed("trajectory:trajectory", "Show how samples are formed."),
        "vary": Listed("redraw:vary", "Draw variations of images."),
        "inpaint": Listed("redraw:inpaint", "Fill a hole in images."),
        "invert": Listed("invert:invert", "Find the noise that a model draws images from."),
        "decode": Listed("invert:decode", "Draw the images of such noise again."),
        "interpolate": Listed("interpolate:interpolate", "Interpolate between images."),
    },
    "Measuring": {
        "evaluate": Listed("evaluate:evaluate", "Measure samples, or a model: FID and others."),
        "compare": Listed("compare:compare", "Show measurements side by side."),
        "likelihood": Listed("likelihood:likelihood", "Measure bits per dimension."),
        "reference": Listed("reference:reference", "Make the statistics of real images."),
        "conformance": Listed("conformance:conformance", "Check what a sampler claims."),
    },
    "Files": {
        "models": Listed("models:models", "List what is shipped."),
        "data": Listed("data:data", "Find, download or prepare a data set."),
        "export": Listed("export:export", "Write a model as a folder that diffusers runs."),
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}


class Commands(click.Group):
    """A group that imports only the command that is run: charts take long to import."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, grouped by what the commands are for."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; of an unknown name a `UserError` that suggests the nearest."""
        if cmd_name in COMMANDS:
            return COMMANDS[cmd_name].load()
        if cmd_name.startswith("-"):
            return None  # an option, which click refuses itself
        raise unknown("command", cmd_name, COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, a section for each group."""
        for title, group in GROUPS.items():
            with formatter.section(title):
                width = max(map(len, COMMANDS))
                formatter.write_dl(
                    [(name.ljust(width), each.summary) for name, each in group.items()]
                )
