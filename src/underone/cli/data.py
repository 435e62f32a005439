"""`underone data`."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from underone.cli.console import out, print_json, table
from underone.data import DATASET_NAMES, Dataset, available_splits, load_dataset
from underone.data.images import to_model_range
from underone.diffusion.score_levels import score_levels


@click.command(epilog=f"Named data sets: {', '.join(DATASET_NAMES)}.")
@click.argument("name")
@click.option("--root", type=click.Path(path_type=Path), help="Look for the files here alone.")
@click.option(
    "--levels",
    is_flag=True,
    help="Print the noise levels of a score-based model of it, as a recipe's schedule.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the description as JSON.")
def data(name: str, root: Path | None, levels: bool, as_json: bool) -> None:
    """Find or download the data set NAME, verify it whole, and describe it.

    NAME is a named data set or a folder of images by class. --levels follows Song and Ermon 2020,
    arXiv 2006.09011, techniques 1 and 2.
    """
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
    out.print(grid)
    out.print("classes: " + ", ".join(splits[0].class_names))


def _print_levels(dataset: Dataset, as_json: bool) -> None:
    schedule = asdict(score_levels(to_model_range(dataset.images)))
    if as_json:
        print_json(schedule)
        return
    for key, value in schedule.items():
        out.print(f"{key} = {json.dumps(value)}", markup=False, highlight=False)


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
