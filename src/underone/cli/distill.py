"""`underone distill`."""

from pathlib import Path

import click
import torch

from underone.cli.console import note, print_json
from underone.cli.options import device_option
from underone.cli.preflight import announce_revision
from underone.cli.training import check_length, train_to_end, training_data
from underone.errors import UserError
from underone.guides import FORMS
from underone.training.begin import resume, start
from underone.training.recipe import ConsistencyTuning, Trajectories
from underone.training.teaching import distillation_recipe
from underone.zoo import load_model

_METHODS = Trajectories.name, ConsistencyTuning.name
_TRAJECTORIES = (
    Trajectories.guidance,
    Trajectories.form,
    Trajectories.grid,
    Trajectories.likeness,
)


@click.command(epilog=f"Forms of guidance: {', '.join(FORMS)}, as in `underone sample`.")
@click.argument("model")
@click.option("--nfe", type=click.IntRange(min=1), required=True, help="The student's evaluations.")
@click.option(
    "--method",
    type=click.Choice(_METHODS),
    default=Trajectories.name,
    help="Follow the teacher's trajectories, or be consistent along its own.",
)
@click.option("--guidance", default=0.0, help="The weight w that the teacher is guided with.")
@click.option("--form", default=Trajectories.form, help="How the weight acts.")
@click.option("--grid", default=Trajectories.grid, help="Where the student's steps are placed.")
@click.option("--likeness", default=0.0, help="The weight of likeness to the data.")
@click.option("--out", type=click.Path(path_type=Path), help="[default: runs/MODEL-N-steps]")
@click.option("--resume", "resuming", is_flag=True, help="Continue the run in --out.")
@click.option("--steps", type=click.IntRange(min=1), help="Updates. [default: 4000]")
@click.option(
    "--max-minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Fit a new run's updates to this time; stop a resumed one after it.",
)
@click.option("--seed", default=0, help="The seed of the noise and of the order of images.")
@click.option("--root", type=click.Path(path_type=Path), help="Where the data set's files are.")
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def distill(
    model: str,
    nfe: int,
    method: str,
    guidance: float,
    form: str,
    grid: str,
    likeness: float,
    out: Path | None,
    resuming: bool,
    steps: int | None,
    max_minutes: float | None,
    seed: int,
    root: Path | None,
    device: torch.device,
    as_json: bool,
) -> None:
    """Teach a copy of MODEL to sample in --nfe evaluations.

    The student is a model like any other, sampled by its own steps by default. It learns the
    guidance of its teacher too, which then costs it nothing. Ctrl-C saves and stops; --resume
    continues exactly where the run was.
    """
    check_length(steps, max_minutes, resuming)
    teacher = load_model(model)
    announce_revision(teacher)
    folder = out or Path("runs") / f"{teacher.name}-{nfe}-{'step' if nfe == 1 else 'steps'}"
    recipe = distillation_recipe(
        model, _method(method, nfe, guidance, form, grid, likeness), teacher.config.data.name, seed
    )
    dataset = training_data(teacher, root, "a student learns from")
    if not teacher.may_be_of(dataset):
        raise UserError(
            f"{teacher.name} was trained on other data than the {dataset.name} found here: name "
            "them with --root"
        )
    if resuming:
        run = resume(folder, recipe, dataset, device)
    else:
        run = start(folder, folder.name, recipe, dataset, device, steps=steps, minutes=max_minutes)
    train_to_end(run, max_minutes if resuming else None)
    run.finish(None)
    if as_json:
        print_json({"folder": str(folder), "steps": run.state.step})
    else:
        note(f"{folder}: done, {run.state.step} steps; draw with underone sample {folder}")


def _method(
    name: str, nfe: int, guidance: float, form: str, grid: str, likeness: float
) -> Trajectories | ConsistencyTuning:
    if name == Trajectories.name:
        return Trajectories(nfe, grid, guidance=guidance, form=form, likeness=likeness)
    if (guidance, form, grid, likeness) != _TRAJECTORIES:
        raise UserError(
            "consistency tuning has no teacher to guide or follow, and no grid to choose: "
            "leave out --guidance, --form, --grid and --likeness"
        )
    return ConsistencyTuning(nfe)
