"""What each choice of the training recipe is worth, at equal time.

    python benchmarks/training_ladder.py                 # trains and measures what is missing
    python benchmarks/training_ladder.py --minutes 30
    python benchmarks/training_ladder.py table           # the result as Markdown

Every rung differs from `fashion-mnist-preconditioned` in what its name says, and makes as many
updates as one core makes in the same minutes: its speed is taken at the start in processor time,
so that other work does not count. Its score is FID of 2,000 balanced samples in 10 evaluations, at
a setting that was chosen beforehand. The two recipes that all others change, and at last the rung
with the lowest FID, are trained with a second seed too, for that moves FID more than drawing again
does. Each result is kept in `training_ladder.json` once measured, with its minutes: stopped at any
moment, the same command continues. Start it once for every core: each process trains a rung that no
other holds. The length of the moving average is no rung: `underone average` finds it after one
training.
"""

import argparse
import fcntl
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from measuring import environment
from trained import DRAW, SCORE_HEADS, SETTING, advance, begun, score, scores_told

from underone.checkpoint import load_config
from underone.cli.console import note
from underone.data import Dataset
from underone.files import write_json
from underone.training.begin import start
from underone.training.recipe import Recipe, load_recipe
from underone.training.stop import stop_on_signals

RESULTS = Path(__file__).with_suffix(".json")
AGAIN = ", second seed"
_WARM_UP, _TIMED = 5, 20
PLAIN, BEST = "fashion-mnist", "fashion-mnist-preconditioned"
MUON = ("optimisation.optimiser=muon", "optimisation.learning_rate=2e-3")
# What differs, by the name of the rung: the recipe, and changes of it.
RUNGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "preconditioned": (BEST, ()),
    "plain DDPM": (PLAIN, ()),
    "preconditioned, second seed": (BEST, ("seed=1",)),
    "plain DDPM, second seed": (PLAIN, ("seed=1",)),
    "plain DDPM, Muon": (PLAIN, MUON),
    "velocity, Muon": ("fashion-mnist-velocity", MUON),
    "AdamW": (
        BEST,
        ("optimisation.optimiser=adamw", "optimisation.learning_rate=1e-3"),
    ),
    "every step alike": (BEST, ("levels={name='every-step'}",)),
    "less noise": (BEST, ("levels.mean=-1.2",)),
    "more noise": (BEST, ("levels.mean=-0.5",)),
    "min-SNR": (
        "fashion-mnist-velocity",
        ("weighting={name='min-snr'}", *MUON),
    ),
    "cosine decay": (BEST, ("optimisation.decay=cosine", "optimisation.flat=0.0")),
    "rate 1e-3": (BEST, ("optimisation.learning_rate=1e-3",)),
    "rate 4e-3": (BEST, ("optimisation.learning_rate=4e-3",)),
    "batch 64": (BEST, ("batch_size=64",)),
    "batch 256": (BEST, ("batch_size=256",)),
    "label dropout 0.05": (BEST, ("label_dropout=0.05",)),
    "label dropout 0.2": (BEST, ("label_dropout=0.2",)),
    "width 48": (BEST, ("network.width=48",)),
    "width 96": (BEST, ("network.width=96",)),
    "two blocks": (BEST, ("network.blocks=2",)),
    "no patches": (BEST, ("network.patch=1", "network.width=32", "network.attention=[14]")),
}


def known() -> dict[str, dict[str, Any]]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def best_again(found: dict[str, dict[str, Any]]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """The rung with the lowest FID, with a second seed; none until all are measured."""
    if not found.keys() >= RUNGS.keys():
        return {}
    name = min(RUNGS, key=lambda name: found[name]["fid"])
    first, (recipe, changes) = name.removesuffix(AGAIN), RUNGS[name]
    again = f"{first}{AGAIN}"
    return {} if again in RUNGS else {again: (recipe, (*changes, "seed=1"))}


@contextmanager
def held(path: Path, *, wait: bool) -> Iterator[bool]:
    """Whether this process alone holds the lock at `path`, until it leaves or dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def climb(rungs: dict[str, tuple[str, tuple[str, ...]]], minutes: float, runs: Path) -> None:
    """Train and measure every rung that is missing and that no other process holds."""
    for name, (recipe, changes) in rungs.items():
        folder = runs / name.replace(" ", "-").replace(",", "")
        with held(folder.with_name(f"{folder.name}.lock"), wait=False) as mine:
            if mine and known().get(name, {}).get("minutes") != minutes:
                result = trained(name, recipe, changes, minutes, folder)
                with held(runs / "results.lock", wait=True):
                    write_json(RESULTS, known() | {name: result})
                note(f"{name}: FID {result['fid']:.3f}")


def updates_in(minutes: float, recipe: Recipe, dataset: Dataset) -> int:
    """The number of updates in `minutes` of one core, by processor time alone."""
    with TemporaryDirectory() as folder:
        steps = _WARM_UP + _TIMED
        run = start(
            Path(folder) / "run", "speed", recipe, dataset, torch.device("cpu"), steps=steps
        )
        times = [time.process_time() for _ in run.advance(lambda: False)]
    each = [after - before for before, after in pairwise(times[_WARM_UP - 1 :])]
    return round(60 * minutes / statistics.median(each))


def trained(
    name: str, recipe: str, changes: tuple[str, ...], minutes: float, folder: Path
) -> dict[str, Any]:
    """What a rung scores after its minutes; stopped by a signal, it is saved and goes on later."""
    updates = partial(updates_in, minutes)
    run = begun(folder, recipe, load_recipe(recipe, changes), minutes, updates)
    with stop_on_signals() as stop:
        advance(run, name, stop)
    if not run.done:
        note("stopped and saved; the same command goes on")
        sys.exit(130)
    training = load_config(run.folder).training
    return {
        "recipe": recipe,
        "changes": list(changes),
        "minutes": minutes,
        "updates": training.steps,
        "images": training.images_seen,
        "seconds": training.seconds,
        **score(run.folder),
        "setting": f"{SETTING.sampler}, {SETTING.steps} steps, {SETTING.grid}",
        "samples": DRAW.count,
        "environment": environment(),
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """The rungs, lowest FID first."""
    rows = [f"| recipe | minutes | images | {SCORE_HEADS} |", "| --- " * 5 + "|"]
    for name, each in sorted(results.items(), key=lambda item: item[1]["fid"]):
        row = name, f"{each['minutes']:g}", f"{each['images']:,}", *scores_told(each)
        rows.append(f"| {' | '.join(row)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", nargs="?", choices=["table"])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--runs", type=Path, default=Path("runs/ladder"))
    arguments = parser.parse_args()
    if arguments.what == "table":
        print(table(known()))
    else:
        torch.set_num_threads(1)
        climb(RUNGS, arguments.minutes, arguments.runs)
        climb(best_again(known()), arguments.minutes, arguments.runs)


if __name__ == "__main__":
    main()
