"""`underone interpolate`."""

from pathlib import Path

import click
import torch

from underone.cli.console import counted, note, print_json
from underone.cli.options import sampling_options
from underone.cli.output import check_output, save, save_grid
from underone.cli.preflight import announce_revision
from underone.cli.source import (
    INVERTIBLE,
    SOURCE_HELP,
    read_source,
    refuse_precision,
    source_options,
)
from underone.data import SampleSet
from underone.editing import check_invertible, check_pairs, classes_of
from underone.editing import interpolate as interpolated
from underone.generation import Draw, Precision, Setting, subject
from underone.zoo import load_model


@click.command(epilog=SOURCE_HELP, context_settings=INVERTIBLE)
@click.argument("model")
@source_options
@sampling_options(count=8)
@click.option("--frames", default=9, help="How many of each pair, including both ends.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("interpolation.png"),
    help="A .png grid, an .npz of arrays, or a folder for PNGs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was drawn as JSON.")
def interpolate(
    model: str,
    source: str,
    split: str,
    root: Path | None,
    setting: Setting,
    draw: Draw,
    precision: Precision,
    device: torch.device,
    frames: int,
    out: Path,
    as_json: bool,
) -> None:
    """Interpolate between images with MODEL: the first and second, the third and fourth, ...

    Their noises, as invert finds them, are interpolated on the sphere and decoded, a row for each
    pair.
    """
    check_output(out)
    refuse_precision(precision)
    loaded = load_model(model, device)
    check_invertible(loaded, setting)
    images, draw = read_source(source, split, root, draw)
    loaded.check_shape(images.images)
    check_pairs(draw.count, frames)
    classes = classes_of(loaded, setting, images, draw)
    announce_revision(loaded)
    total = draw.count + draw.count // 2 * frames
    with counted(f"{setting.sampler}, {setting.steps} steps", total) as on_images:
        between = interpolated(
            loaded, setting, images.images, classes, frames, on_images=on_images
        ).flatten(0, 1)
    protocol = subject(loaded, setting, draw, precision) | {"frames": frames}
    if out.suffix.lower() == ".png":
        save_grid(between, frames, out)
    else:
        save(SampleSet(between, protocol=protocol), out)
    if as_json:
        print_json({"out": str(out), "pairs": draw.count // 2, **protocol})
    else:
        note(f"{out}: pairs: {draw.count // 2}, frames of each: {frames}")
