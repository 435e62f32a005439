"""`underone likelihood`."""

import time
from dataclasses import asdict
from pathlib import Path

import click
import torch
from click.core import ParameterSource
from torch import Tensor

from underone.checkpoint import DiffusionModel
from underone.cli.console import counted, note, out, print_json, table
from underone.cli.options import device_option
from underone.cli.output import check_output
from underone.cli.preflight import announce_revision
from underone.data import SPLITS, Dataset, load_dataset, save_picture, tile
from underone.diffusion.samplers.ddpm import VARIANCES
from underone.errors import UserError
from underone.generation import Draw
from underone.likelihood import (
    Average,
    Chain,
    Flow,
    Likelihood,
    balanced_choice,
    check,
    check_classes,
    most_and_least_likely,
)
from underone.likelihood import likelihood as likelihood_of
from underone.zoo import load_model

_FLOW, _CHAIN = Flow(), Chain()
_COLUMNS = 10


@click.command(
    epilog="Images are chosen from one shuffled order of the data set, in which number i is of "
    "class i mod C: models and seeds are compared on the same images."
)
@click.argument("model")
@click.option("--data", "name", required=True, help="A data set's name, or a folder by class.")
@click.option("--split", type=click.Choice(SPLITS), default="test", help="Which of its splits.")
@click.option("--root", type=click.Path(path_type=Path), help="Where the data set's files are.")
@click.option("--count", default=100, help="How many images, balanced over the classes.")
@click.option("--first", default=0, help="The number of the first image.")
@click.option("--bound", is_flag=True, help="The variational bound, not the probability flow.")
@click.option(
    "--steps",
    type=int,
    help="Runge-Kutta steps of 4 evaluations each, or with --bound the evaluations of an image. "
    f"[default: {_FLOW.steps}, with --bound {_CHAIN.steps}]",
)
@click.option("--repetitions", default=1, help="Independent estimates of each image.")
@click.option(
    "--first-step", default=_FLOW.first_step, help="Where the flow begins, above 0 and below T."
)
@click.option(
    "--variance",
    type=click.Choice(list(VARIANCES)),
    default=_CHAIN.variance,
    help="That of the chain, with --bound.",
)
@click.option("--seed", default=0, help="With an image's number, the key of its noise.")
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A PNG of the most and the least likely images.",
)
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print the measurement as JSON.")
def likelihood(
    model: str,
    name: str,
    split: str,
    root: Path | None,
    count: int,
    first: int,
    bound: bool,
    steps: int | None,
    repetitions: int,
    first_step: float,
    variance: str,
    seed: int,
    picture: Path | None,
    device: torch.device,
    as_json: bool,
) -> None:
    """Measure how likely images are under MODEL, in bits per dimension.

    MODEL is a shipped model's name or a checkpoint folder. Guidance is w = 0, precision float32.
    """
    _refuse_unused("first_step" if bound else "variance", bound)
    method: Flow | Chain
    if bound:
        method = Chain(_CHAIN.steps if steps is None else steps, repetitions, variance)
    else:
        method = Flow(_FLOW.steps if steps is None else steps, repetitions, first_step)
    draw = Draw(count, seed, first)
    if picture is not None:
        check_output(picture, (".png",), "--picture")
    loaded = load_model(model, device)
    data = load_dataset(name, split, root)
    check_classes(loaded, data)
    chosen = balanced_choice(data, count, first)
    images, labels = data.images[chosen], data.labels[chosen]
    check(loaded, method, images, labels)
    announce_revision(loaded)
    started = time.perf_counter()
    with counted(method.title, count) as on_images:
        measured = likelihood_of(
            loaded, images, labels, method, keys=draw.keys, on_images=on_images
        )
    seconds = time.perf_counter() - started
    if as_json:
        print_json(_described(loaded, data, chosen, measured, draw) | {"seconds": seconds})
    else:
        _show(loaded, data, measured, seconds)
    if picture is not None:
        _draw(images, measured, picture)


def _refuse_unused(option: str, bound: bool) -> None:
    """Options that would change nothing are a mistake."""
    if click.get_current_context().get_parameter_source(option) is ParameterSource.COMMANDLINE:
        which = (
            "the flow: leave it out with --bound" if bound else "the chain: give it with --bound"
        )
        raise UserError(f"--{option.replace('_', '-')} is for {which}")


def _show(model: DiffusionModel, data: Dataset, measured: Likelihood, seconds: float) -> None:
    grid = table("", "", "images", "bits/dim", "standard error")
    grid.add_row("all", *_cells(measured.mean))
    for label, average in measured.of_classes.items():
        grid.add_row(data.class_names[label], *_cells(average))
    out.print(grid)
    method = measured.method
    out.print(f"{model.name} on {data.name}, {data.split}: {method.title}", soft_wrap=True)
    if measured.estimator_error is not None:
        out.print(
            f"the part of the standard error that comes from {method.repetitions} repetitions: "
            f"{measured.estimator_error:.4f}",
            soft_wrap=True,
        )
    clipping = "no clipping" if method.threshold == "none" else f"{method.threshold} clipping"
    out.print(
        f"w = 0, {clipping}, float32; network evaluations of an image: "
        f"{sum(measured.evaluations.values()):g}, {seconds:.0f} s in all",
        soft_wrap=True,
    )


def _cells(average: Average) -> tuple[str, str, str]:
    error = "" if average.error is None else f"± {average.error:.3f}"
    return f"{average.images:,}", f"{average.value:.3f}", error


def _described(
    model: DiffusionModel, data: Dataset, chosen: Tensor, measured: Likelihood, draw: Draw
) -> dict[str, object]:
    return {
        "model": {"name": model.name, "sha256": model.sha256, "weights": model.weights},
        "data": {"name": data.name, "split": data.split, "sha256": data.sha256},
        "method": measured.method.title,
        **asdict(measured.method),
        "threshold": measured.method.threshold,
        "guidance": 0.0,
        "precision": "float32",
        "seed": draw.seed,
        "first": draw.first,
        "bits_per_dimension": asdict(measured.mean),
        "estimator_error": measured.estimator_error,
        "classes": {
            data.class_names[label]: asdict(average)
            for label, average in measured.of_classes.items()
        },
        "indices": chosen.tolist(),
        "bits_of_images": measured.of_images.tolist(),
        "evaluations": measured.evaluations,
    }


def _draw(images: Tensor, measured: Likelihood, path: Path) -> None:
    bits = measured.of_images
    order = most_and_least_likely(bits, _COLUMNS)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_picture(tile(images[order], columns=_COLUMNS, scale=2), path)
    note(
        f"{path}: row by row from the most likely image ({bits.min():.2f} bits/dim), top left, "
        f"to the least likely ({bits.max():.2f}), bottom right"
    )
