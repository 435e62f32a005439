"""`underone sample`."""

from pathlib import Path

import click
import torch

from underone.cli.console import counted, note, print_json
from underone.cli.options import SAMPLING_HELP, sampling_options, usual_for
from underone.cli.output import check_output, save
from underone.cli.preflight import announce_revision, learn_variance, sped_up
from underone.generation import Draw, Precision, Setting, check, generate
from underone.zoo import load_generative_model


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
    setting: Setting,
    draw: Draw,
    precision: Precision,
    device: torch.device,
    out: Path,
    as_json: bool,
) -> None:
    """Draw samples of MODEL, a shipped model's name or a checkpoint folder."""
    check_output(out)
    loaded = load_generative_model(model, device)
    setting = usual_for(loaded, setting)
    check(loaded, setting, draw)
    announce_revision(loaded)
    learn_variance(loaded, setting)
    loaded = sped_up(loaded, setting, draw.count, precision)
    with counted(f"{setting.sampler}, {setting.steps} steps", draw.count) as on_images:
        samples = generate(
            loaded,
            setting,
            draw,
            precision=precision,
            on_images=on_images,
        )
    save(samples, out)
    if as_json:
        print_json({"out": str(out), "count": draw.count, **samples.protocol})
    else:
        cost = sum(samples.protocol["evaluations"].values())
        note(f"{out}: samples: {draw.count}, network evaluations of each: {cost:g}")
