"""Options of the commands that edit images: which images, and how they are read."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from underone.cli.options import SAMPLING_HELP
from underone.data import DATASET_NAMES, SPLITS, SampleSet, load_dataset, read_samples
from underone.data.image_files import is_image_file, read_image
from underone.editing import SOURCE_LABELS
from underone.errors import UserError, unknown
from underone.generation import Draw

AnyCommand = Callable[..., Any]

SOURCE_HELP = (
    f"SOURCE is a data set ({', '.join(DATASET_NAMES)}), an .npz, a folder of PNGs, a folder of "
    "images by class, or one image. --first and --count choose among its images. --labels "
    f"{SOURCE_LABELS} takes the images' own. {SAMPLING_HELP}"
)
# The default sampling of an edit: fresh noise lets what is new agree with what is kept.
EDITING = {"default_map": {"sampler": "ddpm-small", "steps": 50, "labels": SOURCE_LABELS}}
# The default sampling of an inversion: a deterministic solver, smooth and in full precision.
INVERTIBLE = {
    "default_map": {
        "sampler": "dpm-solver-2m",
        "steps": 50,
        "grid": "log-snr",
        "threshold": "none",
        "labels": SOURCE_LABELS,
        "precision": "float32",
    }
}
_OPTIONS = (
    click.option("--images", "source", required=True, metavar="SOURCE", help="Which images."),
    click.option("--split", type=click.Choice(SPLITS), default="test", help="Of a data set."),
    click.option("--root", type=click.Path(path_type=Path), help="Where a data set's files are."),
)


def source_options(command: AnyCommand) -> AnyCommand:
    """Give a command the options that choose images."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_source(source: str, split: str, root: Path | None, draw: Draw) -> tuple[SampleSet, Draw]:
    """At most `draw.count` images of `source` from number `draw.first` on, and a draw of as many.

    Their `labels` are None where the source has none.
    """
    every = _every(source, split, root)
    chosen = slice(draw.first, draw.first + draw.count)
    images = every.images[chosen]
    if len(images) == 0:
        raise UserError(
            f"{source} holds {len(every):,} images, so none from number {draw.first} on: choose a "
            "smaller --first"
        )
    labels = None if every.labels is None else every.labels[chosen]
    return SampleSet(images, labels), replace(draw, count=len(images))


def refuse_precision(precision: str) -> None:
    """A `UserError` for less than float32: rounding would grow on the way to noise and back."""
    if precision != "float32":
        raise UserError(f"an inversion is exact in float32 only: leave out --precision {precision}")


def _every(source: str, split: str, root: Path | None) -> SampleSet:
    path = Path(source).expanduser()
    by_class = path.is_dir() and not any(is_image_file(file) for file in path.iterdir())
    if source in DATASET_NAMES or by_class:
        dataset = load_dataset(source, split, root)
        return SampleSet(dataset.images, dataset.labels)
    if root is not None:
        raise UserError(f"--root goes with {' or '.join(DATASET_NAMES)} only, not with {source}")
    if is_image_file(path):
        return SampleSet(read_image(path)[None])
    if path.exists() or path.name != source or path.suffix:
        return read_samples(path)
    raise unknown("images", source, DATASET_NAMES)
