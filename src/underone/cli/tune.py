"""`underone tune`."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path

import click

from underone.cli.console import note, print_json, progress_bar
from underone.cli.options import GUIDANCE_HELP, guidance_options
from underone.cli.preflight import announce_revision
from underone.cli.training import training_data
from underone.generation import TUNED, Setting, option_words
from underone.training.stop import StopRequest, stop_on_signals
from underone.tuned import tuned_path
from underone.tuning.descent import Progress
from underone.tuning.tune import Tuning, set_up, usual_minutes
from underone.zoo import load_model


@click.command(epilog=GUIDANCE_HELP)
@click.argument("model")
@click.option(
    "--nfe",
    type=click.IntRange(min=1),
    required=True,
    help="Steps: evaluations without guidance, which doubles them.",
)
@guidance_options
@click.option(
    "--minutes",
    type=float,
    help="How long to learn, without setup and evaluation. [default: 3, and 0.7 more a step]",
)
@click.option("--seed", default=0, help="The seed of its noise, which no sample set has.")
@click.option("--root", type=click.Path(path_type=Path), help="Where the data set's files are.")
@click.option("--json", "as_json", is_flag=True, help="Print what was learned as JSON.")
def tune(
    model: str,
    nfe: int,
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

    What is learned is kept beside the model and used by `--sampler tuned --steps N`. Ctrl-C saves
    and stops; the same command continues.
    """
    loaded = load_model(model)
    announce_revision(loaded)
    setting = Setting("ddim", nfe, "trailing", guidance, threshold, form, interval)
    dataset = training_data(loaded, root, "a sampler is tuned by")
    if minutes is None:
        minutes = usual_minutes(nfe)
    tuning = set_up(loaded, setting, dataset, minutes=minutes, seed=seed)
    with stop_on_signals() as stop:
        _watch(tuning, stop)
    if not tuning.done:
        note("stopped and saved; the same command goes on")
        sys.exit(128 + stop.signal if stop.signal is not None else 0)
    tuned = tuning.finish()
    if as_json:
        print_json(tuned.model_dump(mode="json"))
    else:
        learning = tuned.learning
        note(
            f"{tuned_path(loaded, tuned.purpose)}: distance in the model's own features "
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
