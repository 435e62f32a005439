"""`underone invert` and `underone decode`."""

from pathlib import Path

import click
import torch

from underone.cli.console import counted, note, print_json
from underone.cli.console import out as console
from underone.cli.options import device_option, sampling_options
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
from underone.editing import (
    SOURCE_LABELS,
    Inverted,
    check_invertible,
    classes_of,
    encode,
    read_inverted,
    share_returned,
)
from underone.editing import (
    decode as decode_noise,
)
from underone.generation import Draw, Precision, Setting, subject
from underone.zoo import load_model


@click.command(epilog=SOURCE_HELP, context_settings=INVERTIBLE)
@click.argument("model")
@source_options
@sampling_options(count=8)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("inversion.png"),
    help="A .png of each image, its noise and the image decoded, or an .npz for decode.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def invert(
    model: str,
    source: str,
    split: str,
    root: Path | None,
    setting: Setting,
    draw: Draw,
    precision: Precision,
    device: torch.device,
    out: Path,
    as_json: bool,
) -> None:
    """Find the noise that MODEL draws each image from, and draw it again.

    A deterministic sampler is run along its path from the image to noise, and back.
    """
    check_output(out, (".png", ".npz"))
    refuse_precision(precision)
    loaded = load_model(model, device)
    check_invertible(loaded, setting)
    images, draw = read_source(source, split, root, draw)
    loaded.check_shape(images.images)
    classes = classes_of(loaded, setting, images, draw)
    announce_revision(loaded)
    with counted(
        f"{setting.sampler}, {setting.steps} steps, there and back", 2 * draw.count
    ) as on_images:
        noise = encode(loaded, setting, images.images, classes, on_images=on_images)
        decoded = decode_noise(loaded, setting, noise, classes, on_images=on_images)
    protocol = subject(loaded, setting, draw, precision)
    inverted = Inverted(noise, decoded, classes, protocol)
    if out.suffix.lower() == ".npz":
        inverted.save(out)
    else:
        rows = torch.stack([images.images, inverted.picture, decoded])
        save_grid(rows.flatten(0, 1), draw.count, out)
    share = share_returned(images.images, decoded)
    mean, deviation = noise.mean().item(), noise.std().item()
    if as_json:
        found = {"returned": share, "noise_mean": mean, "noise_deviation": deviation}
        print_json({"out": str(out), "count": draw.count, **found, **protocol})
    else:
        console.print(f"returned within 2 grey levels: {100 * share:.2f} % of all pixels")
        console.print(f"noise: mean {mean:.3f}, standard deviation {deviation:.3f} (0 and 1)")
        note(f"{out}: images inverted: {draw.count}")


@click.command()
@click.argument("model")
@click.argument("noise", type=click.Path(path_type=Path))
@click.option("--labels", default=SOURCE_LABELS, help="Those it was inverted with, or others.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("decoded.png"),
    help="A .png grid, an .npz of arrays, or a folder for PNGs.",
)
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print what was drawn as JSON.")
def decode(
    model: str, noise: Path, labels: str, out: Path, device: torch.device, as_json: bool
) -> None:
    """Draw the images of NOISE, an .npz of invert, with MODEL and the setting it was made with.

    Other --labels, as of sample, draw other classes from the same noise.
    """
    check_output(out)
    loaded = load_model(model, device)
    inverted = read_inverted(noise)
    setting = inverted.setting
    check_invertible(loaded, setting)
    loaded.check_shape(inverted.noise)
    draw = Draw(len(inverted.noise), labels=labels)
    classes = classes_of(loaded, setting, SampleSet(inverted.images, inverted.labels), draw)
    announce_revision(loaded)
    with counted(f"{setting.sampler}, {setting.steps} steps", draw.count) as on_images:
        images = decode_noise(loaded, setting, inverted.noise, classes, on_images=on_images)
    protocol = subject(loaded, setting, draw, "float32") | {"noise": noise.name}
    save(SampleSet(images, classes, protocol=protocol), out)
    if as_json:
        print_json({"out": str(out), "count": draw.count, **protocol})
    else:
        note(f"{out}: noises decoded: {draw.count}")
