"""`underone sample`."""

import os
from pathlib import Path

import click

from underone.cli.console import announce_revision, counted, learn_variance, note, print_json
from underone.cli.options import SAMPLING_HELP, sampling_options
from underone.data import SampleSet, save_picture, tile
from underone.errors import UserError
from underone.generation import Draw, Precision, Setting, check, generate
from underone.zoo import load_model


@click.command(epilog=SAMPLING_HELP)
@click.argument("model")
@sampling_options(count=100)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("samples.png"),
    help="A .png grid, an .npz of arrays, or a folder for PNGs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was drawn as JSON.")
def sample(
    model: str,
    sampler: str,
    steps: int,
    grid: str,
    guidance: float,
    threshold: str,
    labels: str,
    count: int,
    seed: int,
    first: int,
    precision: Precision,
    out: Path,
    as_json: bool,
) -> None:
    """Draw samples of MODEL, a shipped model's name or a checkpoint folder."""
    setting = Setting(sampler, steps, grid, guidance, threshold)
    draw = Draw(count, seed, first, labels)
    _check_output(out)
    loaded = load_model(model)
    check(loaded, setting, draw)
    announce_revision(loaded)
    learn_variance(loaded, setting)
    with counted(f"{sampler}, {steps} steps", count) as on_images:
        samples = generate(
            loaded,
            setting,
            draw,
            precision=precision,
            on_images=on_images,
        )
    _save(samples, out)
    if as_json:
        print_json({"out": str(out), "count": count, **samples.protocol})
    else:
        cost = sum(samples.protocol["evaluations"].values())
        note(f"{out}: samples: {count}, network evaluations of each: {cost:g}")


def _check_output(out: Path) -> None:
    """Refuse before the work what would be refused after it."""
    if out.name in ("", ".png", ".npz") or out.suffix.lower() not in ("", ".png", ".npz"):
        raise UserError(f"--out {out}: end it in .png or .npz, or name a folder")
    if out.suffix != "" and out.is_dir():
        raise UserError(f"--out {out} is a folder: choose another name")
    nearest = next(parent for parent in (out.parent, *out.parents) if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise UserError(f"--out {out}: nothing can be written in {nearest}: choose another place")
    if out.suffix == "" and out.exists() and (out.is_file() or any(out.iterdir())):
        raise UserError(f"--out {out} exists and is not an empty folder: choose another name")


def _save(samples: SampleSet, out: Path) -> None:
    if out.suffix.lower() == ".npz":
        samples.save_npz(out)
    elif out.suffix.lower() == ".png":
        columns = 10 if len(samples) >= 10 else len(samples)
        save_picture(tile(samples.images, columns=columns, scale=2), out)
    else:
        samples.save_png_folder(out)
