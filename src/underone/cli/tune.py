"""`underone tune`."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path

import click

from underone.checkpoint import DiffusionModel
from underone.cli.console import note, print_json, progress_bar
from underone.cli.options import GUIDANCE_HELP, guidance_options
from underone.cli.preflight import announce_revision
from underone.cli.training import training_data
from underone.errors import UserError
from underone.generation import TUNED, Setting, option_words
from underone.training.stop import StopRequest, stop_on_signals
from underone.tuned import TunedSampler, tuned_path, tuned_sampler
from underone.tuning.descent import Progress
from underone.tuning.tune import Tuning, set_up, usual_minutes
from underone.zoo import load_model


@click.command(epilog=GUIDANCE_HELP)
@click.argument("model")
@click.option(
    "--nfe",
    "numbers",
    type=click.IntRange(min=1),
    multiple=True,
    required=True,
    help="Steps: evaluations without guidance, which doubles them. Repeat it for several in turn.",
)
@guidance_options
@click.option(
    "--minutes",
    type=float,
    help="How long to learn each, without setup and evaluation. [default: 3, and 0.7 more a step]",
)
@click.option("--seed", default=0, help="The seed of its noise, which no sample set has.")
@click.option("--root", type=click.Path(path_type=Path), help="Where the data set's files are.")
@click.option("--json", "as_json", is_flag=True, help="Print what was learned as a JSON array.")
def tune(
    model: str,
    numbers: tuple[int, ...],
    guidance: float,
    form: str,
    interval: tuple[float, float] | None,
    threshold: str,
    minutes: float | None,
    seed: int,
    root: Path | None,
    as_json: bool,
) -> None:
    """Learn the best steps, weights and noise for MODEL at --nfe evaluations.

    What is learned is kept beside the model and used by `--sampler tuned --steps N`. Of several
    numbers each may begin from the ones beside it. Ctrl-C saves and stops; the same command
    continues.
    """
    loaded = load_model(model)
    announce_revision(loaded)
    settings = [
        Setting("ddim", nfe, "trailing", guidance, threshold, form, interval)
        for nfe in dict.fromkeys(numbers)
    ]
    dataset = training_data(loaded, root, "a sampler is tuned by")
    for setting in _untuned(loaded, settings):
        limit = usual_minutes(setting.steps) if minutes is None else minutes
        tuning = set_up(loaded, setting, dataset, minutes=limit, seed=seed)
        with stop_on_signals() as stop:
            _watch(tuning, stop)
        if not tuning.done:
            note("stopped and saved; the same command goes on")
            sys.exit(128 + stop.signal if stop.signal is not None else 0)
        tuned = tuning.finish()
        if not as_json:
            note(_told(loaded, setting, tuned))
    if as_json:
        found = (tuned_sampler(loaded, setting.purpose) for setting in settings)
        print_json([tuned.model_dump(mode="json") for tuned in found])


def _untuned(model: DiffusionModel, settings: list[Setting]) -> list[Setting]:
    """Those of several settings that are not tuned yet, as some are when a command goes on.

    A single one is left to be refused.
    """
    for setting in settings:
        setting.check(model)
    if len(settings) == 1:
        return settings
    return [setting for setting in settings if not _is_tuned(model, setting)]


def _is_tuned(model: DiffusionModel, setting: Setting) -> bool:
    try:
        tuned_sampler(model, setting.purpose)
    except UserError:
        return False
    note(f"{tuned_path(model, setting.purpose)} is tuned already")
    return True


def _told(model: DiffusionModel, setting: Setting, tuned: TunedSampler) -> str:
    learning = tuned.learning
    return (
        f"{tuned_path(model, tuned.purpose)}: distance in the model's own features "
        f"{learning.distance_before:.3f} -> {learning.distance_after:.3f}; "
        f"use it with {shlex.join(option_words(replace(setting.effective, sampler=TUNED)))}"
    )


def _watch(tuning: Tuning, stop: StopRequest) -> None:
    with progress_bar() as bar:
        task = bar.add_task("tuning", total=round(60 * tuning.minutes))

        def show(progress: Progress) -> None:
            distance = f"distance {progress.distance:.3f}"
            bar.update(task, completed=round(progress.seconds), description=distance)

        tuning.run(lambda: stop.signal is not None, show)
