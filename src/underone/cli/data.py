"""`underone data`."""

import json
import shlex
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import click

from underone.cli import console
from underone.cli.console import note, print_json, table
from underone.data import (
    DATASET_NAMES,
    LICENCES,
    SPLITS,
    Dataset,
    available_splits,
    keep,
    load_dataset,
    prepare_folder,
)
from underone.data.folder import folder_splits
from underone.data.images import to_model_range
from underone.data.prepare import HELD_OUT
from underone.diffusion.score_levels import score_levels
from underone.errors import UserError
from underone.training.recipe import DiffusionRecipe, load_recipe

# Attention is at the first level with at most this many pixels a side.
_ATTENDED = 10


@click.command(epilog=f"Named data sets: {', '.join(DATASET_NAMES)}.")
@click.argument("name")
@click.option("--root", type=click.Path(path_type=Path), help="Look for the files only here.")
@click.option(
    "--from",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep this copy of the data set's single file, if its checksum is right.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the folder NAME here, its images brought to one --size and some held out.",
)
@click.option("--size", type=click.IntRange(min=4), help="The side of the images in --out.")
@click.option(
    "--held-out",
    type=click.FloatRange(min=0, max=1, min_open=True, max_open=True),
    help="The share of each class that --out holds out.  [default: 0.2]",
)
@click.option(
    "--levels",
    is_flag=True,
    help="Print the noise levels of a score-based model of it, as a recipe's schedule.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the description as JSON.")
def data(
    name: str,
    root: Path | None,
    file: Path | None,
    out: Path | None,
    size: int | None,
    held_out: float | None,
    levels: bool,
    as_json: bool,
) -> None:
    """Find or download the data set NAME, verify all of it, and describe it.

    NAME is a named data set or a folder of images by class. With --out, images of any size and
    format become a folder to train on: laid on white, cropped to their central square, resized to
    --size, a share of each class held out by hash. Images in one sub-folder of a class stay
    together. --levels follows Song and Ermon 2020, arXiv 2006.09011, techniques 1 and 2.
    """
    if file is not None:
        if root is not None:
            raise UserError("give --from, which keeps the file for good, or --root, not both")
        keep(name, file)
    if out is not None:
        if root is not None:
            raise UserError("--root is where a named data set's files are: leave it out with --out")
        _prepare(name, out, size, held_out)
        name = str(out)
    elif size is not None or held_out is not None:
        raise UserError("--size and --held-out are for the folder to write: add --out FOLDER")
    if levels:
        _print_levels(load_dataset(name, "train", root), as_json)
        return
    splits = [load_dataset(name, split, root) for split in available_splits(name)]
    if as_json:
        print_json([_described(dataset) for dataset in splits])
        return
    grid = table(name, "split", "images", "channels x height x width", "sha256")
    for dataset in splits:
        shape = " x ".join(str(size) for size in dataset.images.shape[1:])
        grid.add_row(dataset.split, f"{len(dataset):,}", shape, dataset.sha256[:16])
    console.out.print(grid)
    console.out.print("classes: " + ", ".join(splits[0].class_names))
    if name in LICENCES:
        console.out.print(f"licence: {LICENCES[name]}")
    else:
        note(_how_to_train(name, splits[0]))


def _prepare(name: str, out: Path, size: int | None, held_out: float | None) -> None:
    if name in DATASET_NAMES or not Path(name).is_dir():
        raise UserError(f"--out prepares a folder of images by class, and {name} is not one")
    if str(out) in DATASET_NAMES:
        raise UserError(f"{out} is the name of a data set: choose another --out")
    if size is None:
        raise UserError("--out needs --size, the side of the images in pixels, like --size 32")
    if held_out != held_out:  # NaN is within every range
        raise UserError("--held-out takes a share between 0 and 1, got nan")
    if held_out is not None and folder_splits(Path(name)) == SPLITS:
        raise UserError(
            f"{name} is divided into {' and '.join(SPLITS)} already: leave out --held-out"
        )
    prepare_folder(Path(name), out, size, HELD_OUT if held_out is None else held_out)


def _how_to_train(name: str, dataset: Dataset) -> str:
    """The command that trains the recipe `images` on these, if they are square."""
    network = cast("DiffusionRecipe", load_recipe("images")).network
    channels, height, width = dataset.images.shape[1:]
    if height != width:
        return (
            f"networks take square images, and these are {width}x{height}: underone data "
            f"{shlex.quote(name)} --size {min(height, width)} --out NEW makes them so"
        )
    patch = network.patch if width % network.patch == 0 else 1
    bare = replace(network, image_size=width, patch=patch, attention=())
    found = {
        "classes": dataset.num_classes,
        "channels": channels,
        "image_size": width,
        "patch": patch,
        "attention": [next((s for s in bare.resolutions if s <= _ATTENDED), bare.resolutions[-1])],
    }
    known = {key: getattr(network, key) for key in found}
    known["attention"] = [*network.attention]
    changes = [f"data={_as_text(name)}"] + [
        f"network.{key}={value}" for key, value in found.items() if value != known[key]
    ]
    sets = " ".join(f"--set {shlex.quote(change)}" for change in changes)
    return f"to train on it: underone train images {sets}"


def _as_text(name: str) -> str:
    """A folder's name, such that `--set` does not take it for a number."""
    try:
        tomllib.loads(f"value = {name}")
    except tomllib.TOMLDecodeError:
        return name
    return f"./{name}"


def _print_levels(dataset: Dataset, as_json: bool) -> None:
    schedule = asdict(score_levels(to_model_range(dataset.images)))
    if as_json:
        print_json(schedule)
        return
    for key, value in schedule.items():
        console.out.print(f"{key} = {json.dumps(value)}")


def _described(dataset: Dataset) -> dict[str, object]:
    counts = dataset.labels.bincount(minlength=dataset.num_classes).tolist()
    return {
        "name": dataset.name,
        "split": dataset.split,
        "images": len(dataset),
        "shape": list(dataset.images.shape[1:]),
        "classes": dict(zip(dataset.class_names, counts, strict=True)),
        "sha256": dataset.sha256,
    }
