"""Options that several commands share: how to sample, and which samples."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from underone.diffusion import GRIDS, SAMPLERS, THRESHOLDS
from underone.generation import ANALYTIC, Draw, Setting

_SETTING, _DRAW = Setting(), Draw(1)
AnyCommand = Callable[..., Any]

SAMPLING_HELP = (
    f"Samplers: {', '.join((*SAMPLERS, ANALYTIC))}. Grids: {', '.join(GRIDS)}, explicit. "
    "Options follow a name: ddim,eta=0.5 or explicit,steps=1000:500:100. A sampler or grid of your "
    "own is module:Name. At w = -1 labels are not used: the model draws of all classes."
)

_OPTIONS = (
    click.option("--sampler", default=_SETTING.sampler, help="How to step."),
    click.option(
        "--steps", default=_SETTING.steps, help="How many; most samplers evaluate once each."
    ),
    click.option("--grid", default=_SETTING.grid, help="Where the steps are placed."),
    click.option(
        "--guidance",
        default=_SETTING.guidance,
        help="The weight w of (1+w) model(x, class) - w model(x, none); others' scale is 1+w.",
    ),
    click.option(
        "--threshold",
        type=click.Choice(list(THRESHOLDS)),
        default=_SETTING.threshold,
        help="Bound x0 after guidance: to [-1, 1], by a quantile of its own, or not.",
    ),
    click.option("--labels", default=_DRAW.labels, help="balanced, random, or classes like 0,3,3."),
    click.option("--seed", default=_DRAW.seed, help="With a sample's index, the key of its noise."),
    click.option("--first", default=_DRAW.first, help="The index of the first sample."),
    click.option(
        "--precision",
        type=click.Choice(["auto", "float32"]),
        default="auto",
        help="auto: bfloat16 where the machine is fast in it.",
    ),
)


# The names of the options that say how a model is sampled.
SAMPLING_OPTIONS = (*(field.name for field in (*fields(Setting), *fields(Draw))), "precision")


def sampling_options(count: int) -> Callable[[AnyCommand], AnyCommand]:
    """Give a command the options of `Setting` and `Draw`, `count` samples by default, and more."""
    how_many = click.option("--count", default=count, help="How many samples.")

    def decorated(command: AnyCommand) -> AnyCommand:
        for option in reversed((*_OPTIONS, how_many)):
            command = option(command)
        return command

    return decorated
