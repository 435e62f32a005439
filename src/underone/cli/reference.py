"""`underone reference`."""

from pathlib import Path

import click

from underone.adapters import find_extractor
from underone.cli.console import note
from underone.cli.output import check_output
from underone.cli.preflight import announce
from underone.data import SPLITS, available_splits, load_dataset
from underone.metrics import build_reference, save_reference


@click.group()
def reference() -> None:
    """Statistics of real images, which samples are measured against."""


@reference.command()
@click.argument("data")
@click.option(
    "--extractor", required=True, help="What extracts the features, named as in evaluate."
)
@click.option("--split", type=click.Choice(SPLITS), default="train", help="The split to describe.")
@click.option("--root", type=click.Path(path_type=Path), help="Where the data set's files are.")
@click.option("--out", type=click.Path(path_type=Path), help="The file. [default: DATA.npz]")
def build(data: str, extractor: str, split: str, root: Path | None, out: Path | None) -> None:
    """Build the reference of DATA, a data set's name or a folder of images by class.

    The other split, if there is one, is held out: the floor is measured on it. The file's `mu` and
    `sigma` are read by other programs too.
    """
    path = out or Path(f"{Path(data).name}.npz")
    check_output(path, (".npz",))
    features = find_extractor(extractor)
    announce(features)
    images = load_dataset(data, split, root)
    other = next(name for name in SPLITS if name != split)
    held_out = load_dataset(data, other, root) if other in available_splits(data) else None
    built = build_reference(path.stem, images, held_out, features, found_as=extractor)
    save_reference(built, path)
    note(f"{path}: {built.count:,} images of {images.name} ({split}) in {features.name}")
