"""`underone average`."""

from pathlib import Path

import click

from underone.checkpoint import (
    DiffusionConfig,
    VAECheckpointConfig,
    load_config,
    save_config,
    save_weights,
)
from underone.cli.console import note
from underone.errors import UserError
from underone.files import check_new_folder, write_folder
from underone.training.post_hoc import averaged

# A misfit of the profile that the user should know of.
_LARGE_MISFIT = 0.05


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--width", type=float, required=True, help="As a share of the whole training.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The folder of the new model."
)
def average(run: Path, width: float, out: Path) -> None:
    """Make a moving average of another width of a RUN that is trained already.

    It is made of the snapshots of two averages that `--set snapshots=N` has kept (Karras et al.
    2024).
    """
    config = load_config(run)
    if not isinstance(config, DiffusionConfig | VAECheckpointConfig):
        raise UserError(f"{run} is not a model that is sampled: only those have averages")
    check_new_folder(out)
    made = averaged(run, width)
    # The run may have gone on since its last snapshot.
    training = config.training.model_copy(
        update={
            "moving_average": width,
            "weak_steps": None,
            "steps": made.step,
            "images_seen": made.step * config.training.batch_size,
        }
    )
    described = config.model_copy(update={"training": training})

    def write(whole: Path) -> None:
        save_weights(whole, made.tensors)
        save_config(whole, described)

    write_folder(out, write)
    note(f"{out}: the average of width {width:g}; its profile is off by {made.fit.misfit:.1%}")
    if made.fit.misfit > _LARGE_MISFIT:
        note("this is much: widths between the two that were kept, and more snapshots, fit better")
