"""`underone vary` and `underone inpaint`."""

from pathlib import Path

import click
import torch
from torch import Tensor

from underone.checkpoint import DiffusionModel
from underone.cli.console import counted, note, print_json
from underone.cli.options import sampling_options
from underone.cli.output import check_output, save, save_grid
from underone.cli.preflight import announce_revision, learn_variance
from underone.cli.source import EDITING, SOURCE_HELP, read_source, source_options
from underone.data import SampleSet
from underone.data.image_files import read_image
from underone.editing import Edit, Inpainting, Variation, classes_of, redraw
from underone.errors import UserError
from underone.generation import Draw, Precision, Setting
from underone.zoo import load_model

_GREY = 128
_OUT_HELP = "A .png with the images on the left, an .npz of arrays, or a folder for PNGs."


@click.command(epilog=SOURCE_HELP, context_settings=EDITING)
@click.argument("model")
@source_options
@sampling_options(count=4)
@click.option("--strength", default=0.5, help="The share of the way to noise, in (0, 1].")
@click.option("--variations", type=click.IntRange(min=1), default=8, help="How many of each image.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("variations.png"), help=_OUT_HELP
)
@click.option("--json", "as_json", is_flag=True, help="Print what was drawn as JSON.")
def vary(
    model: str,
    source: str,
    split: str,
    root: Path | None,
    setting: Setting,
    draw: Draw,
    precision: Precision,
    device: torch.device,
    strength: float,
    variations: int,
    out: Path,
    as_json: bool,
) -> None:
    """Draw variations of images with MODEL: noised part of the way, and sampled from there.

    The more --strength, the less is left of the image. Variation j of an image has seed + j.
    """
    check_output(out)
    loaded = load_model(model, device)
    edit = Variation(strength)
    images, draw = read_source(source, split, root, draw)
    drawn = _redrawn(loaded, setting, edit, images, draw, variations, precision)
    _report(drawn, images.images[:, None], out, as_json)


@click.command(epilog=SOURCE_HELP, context_settings=EDITING)
@click.argument("model")
@source_options
@sampling_options(count=4)
@click.option(
    "--box", metavar="TOP:LEFT:BOTTOM:RIGHT", help="The hole, in pixels from the top left."
)
@click.option(
    "--mask",
    type=click.Path(path_type=Path, dir_okay=False),
    help="An image of the same size, white where the hole is.",
)
@click.option("--variations", type=click.IntRange(min=1), default=4, help="How many of each image.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("inpainting.png"), help=_OUT_HELP
)
@click.option("--json", "as_json", is_flag=True, help="Print what was drawn as JSON.")
def inpaint(
    model: str,
    source: str,
    split: str,
    root: Path | None,
    setting: Setting,
    draw: Draw,
    precision: Precision,
    device: torch.device,
    box: str | None,
    mask: Path | None,
    variations: int,
    out: Path,
    as_json: bool,
) -> None:
    """Fill a hole in images with MODEL, and leave every other pixel as it is.

    Samplers that draw noise fit the filling to what surrounds it; variation j of an image has
    seed + j.
    """
    check_output(out)
    loaded = load_model(model, device)
    edit = Inpainting(_hole(box, mask, loaded))
    images, draw = read_source(source, split, root, draw)
    drawn = _redrawn(loaded, setting, edit, images, draw, variations, precision)
    holed = torch.where(edit.hole, _GREY, images.images).to(torch.uint8)
    _report(drawn, torch.stack([images.images, holed], dim=1), out, as_json)


def _redrawn(
    model: DiffusionModel,
    setting: Setting,
    edit: Edit,
    source: SampleSet,
    draw: Draw,
    variations: int,
    precision: Precision,
) -> SampleSet:
    setting.check(model)
    model.check_shape(source.images)
    edit.check(model, setting)
    classes = classes_of(model, setting, source, draw)
    announce_revision(model)
    learn_variance(model, setting)
    total = draw.count * variations
    with counted(f"{setting.sampler}, {setting.steps} steps", total) as on_images:
        return redraw(
            model,
            setting,
            edit,
            source.images,
            classes,
            draw,
            variations=variations,
            precision=precision,
            on_images=on_images,
        )


def _report(drawn: SampleSet, before: Tensor, out: Path, as_json: bool) -> None:
    """Save what was drawn, in a picture beside the images `before`, (N, columns, C, H, W)."""
    if out.suffix.lower() == ".png":
        each = drawn.images.reshape(len(before), -1, *drawn.images.shape[1:])
        rows = torch.cat([before, each], dim=1)
        save_grid(rows.flatten(0, 1), rows.shape[1], out)
    else:
        save(drawn, out)
    if as_json:
        print_json({"out": str(out), "count": len(drawn), **drawn.protocol})
    else:
        cost = sum(drawn.protocol["evaluations"].values())
        note(f"{out}: samples: {len(drawn)}, network evaluations of each: {cost:g}")


def _hole(box: str | None, mask: Path | None, model: DiffusionModel) -> Tensor:
    """Where the hole is, bool (H, W)."""
    if (box is None) == (mask is None):
        raise UserError("give the hole by either --box TOP:LEFT:BOTTOM:RIGHT or --mask FILE")
    if mask is not None:
        return read_image(mask).float().mean(0) > _GREY
    height, width = model.shape[1:]
    try:
        top, left, bottom, right = map(int, (box or "").split(":"))
    except ValueError:
        raise UserError(f"--box takes TOP:LEFT:BOTTOM:RIGHT, like 8:8:20:20, got {box!r}") from None
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise UserError(
            f"--box {box} is not a box in an image of {height} x {width}: it needs "
            f"0 <= TOP < BOTTOM <= {height} and 0 <= LEFT < RIGHT <= {width}"
        )
    hole = torch.zeros(height, width, dtype=torch.bool)
    hole[top:bottom, left:right] = True
    return hole
