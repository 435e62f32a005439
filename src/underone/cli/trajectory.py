"""`underone trajectory`."""

from pathlib import Path

import click
import torch

from underone.cli.console import counted, note
from underone.cli.options import SAMPLING_HELP, sampling_options, usual_for
from underone.cli.output import check_output, save_grid
from underone.cli.preflight import announce_revision, learn_variance
from underone.editing import check_frames, trajectories
from underone.generation import Draw, Precision, Setting, check
from underone.zoo import load_model


@click.command(epilog=SAMPLING_HELP)
@click.argument("model")
@sampling_options(count=4)
@click.option("--frames", default=10, help="How many of each sample, from noise to image.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("trajectory.png"), help="A .png."
)
def trajectory(
    model: str,
    setting: Setting,
    draw: Draw,
    precision: Precision,
    device: torch.device,
    frames: int,
    out: Path,
) -> None:
    """Show how samples of MODEL are formed: two rows each, the state x above the estimate x0."""
    check_output(out, (".png",))
    loaded = load_model(model, device)
    setting = usual_for(loaded, setting)
    check(loaded, setting, draw)
    check_frames(setting, frames)
    announce_revision(loaded)
    learn_variance(loaded, setting)
    with counted(f"{setting.sampler}, {setting.steps} steps", draw.count) as on_images:
        stills = trajectories(
            loaded, setting, draw, frames, precision=precision, on_images=on_images
        )
    rows = torch.stack([stills.x, stills.x0], dim=1)
    save_grid(rows.flatten(0, 2), frames, out)
    note(f"{out}: of each sample the noisy state, and below it the image expected there")
