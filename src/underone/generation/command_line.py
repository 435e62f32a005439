"""Settings as options of the command line."""

import shlex
from dataclasses import fields

import torch

from underone.generation.draw import Draw
from underone.generation.setting import Precision, Setting


def option_words(setting: Setting) -> list[str]:
    """The command-line options of a setting, always with its sampler.

    Without one a model may use a default of its own.
    """
    options = {"sampler": setting.sampler, **setting.options}
    return [word for name, value in options.items() for word in (f"--{name}", _option(value))]


def sample_command(
    model: str,
    setting: Setting,
    draw: Draw,
    precision: Precision = "auto",
    device: torch.device | str = "cpu",
) -> str:
    """The command line that draws these samples of the model called `model`."""
    others = {"precision": (precision, "auto"), "device": (str(device), "cpu")}
    names = (field.name for field in fields(Draw) if field.name != "count")  # always given
    others |= {name: (getattr(draw, name), getattr(Draw, name)) for name in names}
    words = ["underone", "sample", model, *option_words(setting)]
    for name, (value, usual) in others.items():
        words += [] if value == usual else [f"--{name}", str(value)]
    return shlex.join([*words, "--count", str(draw.count), "--out", "samples.png"])


def _option(value: object) -> str:
    if isinstance(value, tuple):
        return ":".join(map(_option, value))
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)
