"""The claim: from scratch to FID < 1 in 15 minutes of two cores.

    make speedrun
    python benchmarks/speedrun.py --minutes 15 --out runs/speedrun

Trains `fashion-mnist-preconditioned` for so many minutes, keeping the averaged weights as they are
after each minute of them; then measures every snapshot, off the clock, by FID of 2,000 balanced
samples: in 10 evaluations without guidance, a setting chosen before there were any models, and in
10 guided steps, chosen of eight settings on the last snapshot of one run, by other seeds. The clock
counts updates alone: not the saving, nor the pictures, nor the measuring. Ctrl-C saves; the same
command goes on, with the training and with the measuring.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measuring import environment
from trained import DRAW, SCORE_HEADS, SETTING, advance, begun, score, scores_told

from underone.checkpoint import load_config, save_config, save_weights
from underone.cli.console import note
from underone.files import read_json, write_json
from underone.generation import Setting
from underone.study.words import setting_title
from underone.training.recipe import load_recipe
from underone.training.run import Run
from underone.training.stop import stop_on_signals

RESULTS = Path(__file__).with_suffix(".json")
RECIPE = "fashion-mnist-preconditioned"
SNAPSHOT_SECONDS = 60.0
GUIDED = Setting("sa-solver", 10, "log-snr,last=20", guidance=0.25)
SETTINGS = {setting_title(each): each for each in (SETTING, GUIDED)}


def snapshots_of(folder: Path) -> Path:
    """A folder beside the run's own, which holds nothing else."""
    return folder.parent / f"{folder.name}-snapshots"


class Keeper:
    """Keeps the average of a run as a model of its own, each minute of training and at the end."""

    def __init__(self, run: Run) -> None:
        self.due = SNAPSHOT_SECONDS * (1 + run.state.seconds // SNAPSHOT_SECONDS)

    def __call__(self, run: Run) -> None:
        if run.state.average is None or (run.state.seconds < self.due and not run.done):
            return
        folder = snapshots_of(run.folder) / f"{run.state.step:06d}"
        save_weights(folder, run.state.average.state_dict())
        save_config(folder, run.config())
        self.due += SNAPSHOT_SECONDS


def moment(snapshot: Path) -> dict[str, Any]:
    """How far the training was."""
    training = load_config(snapshot).training
    return {"minutes": training.seconds / 60, "images": training.images_seen}


def curve(folder: Path) -> Iterator[dict[str, Any]]:
    """What each snapshot scores; what has been measured is not measured again."""
    for snapshot in sorted(snapshots_of(folder).iterdir()):
        kept = snapshot / "score.json"
        point = read_json(kept) if kept.exists() else moment(snapshot) | {"scores": {}}
        for title, setting in SETTINGS.items():
            if title not in point["scores"]:
                point["scores"][title] = score(snapshot, setting)
                write_json(kept, point)
        yield point


def summary(points: list[dict[str, Any]]) -> dict[str, Any]:
    """The curve, and by setting the first minute that is under one."""
    return {
        "recipe": RECIPE,
        "samples": DRAW.count,
        "minutes_to_fid_below_1": {title: first_below_1(points, title) for title in SETTINGS},
        "curve": points,
        "environment": environment(),
    }


def first_below_1(points: list[dict[str, Any]], title: str) -> float | None:
    """The minutes of the first snapshot whose FID at a setting is below 1; None if none is."""
    found = (each["minutes"] for each in points if each["scores"][title]["fid"] < 1)
    return min(found, default=None)


def told(minutes: float | None) -> str:
    """When it got below 1."""
    return "never" if minutes is None else f"after {minutes:.1f} minutes"


def table(results: dict[str, Any]) -> str:
    """The curve of a run, as Markdown."""
    below = results["minutes_to_fid_below_1"]
    rows = [f"`{results['recipe']}`, {results['samples']:,} samples. FID is below 1 with:", ""]
    rows += [f"- {title}: {told(minutes)}." for title, minutes in below.items()]
    rows += [
        "",
        f"| minutes | images | {' | '.join(f'{title}: {SCORE_HEADS}' for title in below)} |",
        "| --- " * (2 + 2 * len(below)) + "|",
    ]
    for point in results["curve"]:
        figures = [" | ".join(scores_told(point["scores"][title])) for title in below]
        cells = (f"{point['minutes']:.1f}", f"{point['images']:,.0f}", *figures)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--out", type=Path, default=Path("runs/speedrun"))
    arguments = parser.parse_args()
    run = begun(arguments.out, RECIPE, load_recipe(RECIPE), arguments.minutes)
    if run.state.step == 0 and snapshots_of(run.folder).exists():
        sys.exit(f"{snapshots_of(run.folder)} is of an earlier run: remove it")
    with stop_on_signals() as stop:
        advance(run, "training", stop, Keeper(run))
    if not run.done:
        note(f"stopped at step {run.state.step} of {run.plan.horizon}; the same command goes on")
        sys.exit(130)
    points = []
    for point in curve(run.folder):
        points.append(point)
        fids = ", ".join(f"{scored['fid']:.3f}" for scored in point["scores"].values())
        note(f"{point['minutes']:.1f} minutes: FID {fids}")
    results = summary(points)
    print(table(results))
    write_json(RESULTS, results)


if __name__ == "__main__":
    main()
