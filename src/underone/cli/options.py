"""Options that several commands share: how to sample, and which samples."""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import wraps
from typing import Any

import click
import torch
from click.core import ParameterSource

from underone.checkpoint import GenerativeModel
from underone.diffusion import GRIDS, SAMPLERS, THRESHOLDS
from underone.errors import UserError, first_line
from underone.generation import Draw, Precision, Setting, usual_setting
from underone.guides import FORMS
from underone.named import MADE_FOR_A_MODEL, interval_named

_SETTING, _DRAW = Setting(), Draw(1)
AnyCommand = Callable[..., Any]

GUIDANCE_HELP = (
    f"Forms of guidance: {', '.join(FORMS)}; options follow a name, like rescaled,phi=0.5. With "
    "auto and classifier another checkpoint guides: the one kept beside the model or shipped for "
    "its data, or another, as auto,by=FOLDER."
)
SAMPLING_HELP = (
    f"Samplers: {', '.join((*SAMPLERS, *MADE_FOR_A_MODEL))}. Grids: {', '.join(GRIDS)}, explicit. "
    "Options follow a name: ddim,eta=0.5 or explicit,steps=1000:500:100. A sampler or grid of your "
    "own is module:Name. At w = -1 labels are not used: the model draws from all classes. "
    f"{GUIDANCE_HELP}"
)


def _device(name: str) -> torch.device:
    """A torch device that can be used, or a `UserError`."""
    try:
        device = torch.device(name)
        # Times and noise levels are float64, which not every device has.
        torch.empty(1, dtype=torch.float64, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise UserError(f"--device {name} cannot be used here: {first_line(error)}") from None
    return device


device_option = click.option(
    "--device",
    default="cpu",
    callback=lambda context, option, name: _device(name),
    help="The torch device that networks run on, like cuda.",
)

precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", "float32"]),
    default="auto",
    help="auto: bfloat16 where the machine is fast in it.",
)

# How a model is guided, and its estimates bounded.
_GUIDANCE_OPTIONS = (
    click.option(
        "--guidance",
        default=_SETTING.guidance,
        help="The weight w of (1+w) model(x, class) - w model(x, none); others' scale is 1+w.",
    ),
    click.option("--form", default=_SETTING.form, help="How the weight acts; see below."),
    click.option(
        "--interval",
        metavar="LOW:HIGH",
        callback=lambda context, option, text: None if text is None else interval_named(text),
        help="Guide only where LOW < sigma / alpha <= HIGH.",
    ),
    click.option(
        "--threshold",
        type=click.Choice(list(THRESHOLDS)),
        default=_SETTING.threshold,
        help="Bound x0 after guidance: to [-1, 1], by a quantile of its own, or not.",
    ),
)

_OPTIONS = (
    click.option("--sampler", default=_SETTING.sampler, help="How to step."),
    click.option(
        "--steps", default=_SETTING.steps, help="How many; most samplers evaluate once each."
    ),
    click.option("--grid", default=_SETTING.grid, help="Where the steps are placed."),
    *_GUIDANCE_OPTIONS,
    click.option(
        "--labels",
        default=_DRAW.labels,
        help="balanced, random, proportional (to the training data), or classes like 0,3,3.",
    ),
    click.option("--seed", default=_DRAW.seed, help="With a sample's index, the key of its noise."),
    click.option("--first", default=_DRAW.first, help="The index of the first sample."),
    precision_option,
    device_option,
)


# The names of the options that say how a model is sampled.
SAMPLING_OPTIONS = (
    *(field.name for field in (*fields(Setting), *fields(Draw))),
    "precision",
    "device",
)


def sampling_options(count: int) -> Callable[[AnyCommand], AnyCommand]:
    """Give a command the options of `Setting` and `Draw`, `count` samples by default, and more.

    The command itself takes `setting`, `draw`, `precision` and `device` in their place.
    """
    how_many = click.option("--count", default=count, help="How many samples.")

    def decorated(command: AnyCommand) -> AnyCommand:
        @wraps(command)
        def gathered(*, precision: Precision, **options: Any) -> None:
            setting = Setting(**{name: options.pop(name) for name in _names(Setting)})
            draw = Draw(**{name: options.pop(name) for name in _names(Draw)})
            command(setting=setting, draw=draw, precision=precision, **options)

        for option in reversed((*_OPTIONS, how_many)):
            gathered = option(gathered)
        return gathered

    return decorated


def _names(kind: type[Setting] | type[Draw]) -> list[str]:
    return [field.name for field in fields(kind)]


def usual_for(model: GenerativeModel, setting: Setting) -> Setting:
    """The chosen setting; where no sampler was named, with the usual one of `model`.

    Its usual number of steps goes with it, unless that was named.
    """
    source = click.get_current_context().get_parameter_source
    if source("sampler") is not ParameterSource.DEFAULT:
        return setting
    usual = usual_setting(model)
    steps = usual.steps if source("steps") is ParameterSource.DEFAULT else setting.steps
    return replace(setting, sampler=usual.sampler, steps=steps)


def guidance_options(command: AnyCommand) -> AnyCommand:
    """Give a command the options that say how a model is guided and bounded."""
    for option in reversed(_GUIDANCE_OPTIONS):
        command = option(command)
    return command
