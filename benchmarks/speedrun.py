"""The claim: from scratch to FID < 1 in 15 minutes of two cores.

    make speedrun
    python benchmarks/speedrun.py --minutes 15 --out runs/speedrun

Trains `fashion-mnist-preconditioned` for so many minutes, keeping the averaged weights as they are
after each minute of them; then measures every snapshot, off the clock, by FID of 2,000 balanced
samples in 10 evaluations, a setting that was chosen beforehand. The clock counts updates alone: not
the saving, nor the pictures, nor the measuring. Ctrl-C saves; the same command goes on, with the
training and with the measuring.
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
from underone.training.recipe import load_recipe
from underone.training.run import Run
from underone.training.stop import stop_on_signals

RESULTS = Path(__file__).with_suffix(".json")
RECIPE = "fashion-mnist-preconditioned"
SNAPSHOT_SECONDS = 60.0


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


def curve(folder: Path) -> Iterator[dict[str, float]]:
    """What each snapshot scores; what has been measured is not measured again."""
    for snapshot in sorted(snapshots_of(folder).iterdir()):
        kept = snapshot / "score.json"
        if not kept.exists():
            training = load_config(snapshot).training
            when = {"minutes": training.seconds / 60, "images": training.images_seen}
            write_json(kept, when | score(snapshot))
        yield read_json(kept)


def summary(points: list[dict[str, float]]) -> dict[str, Any]:
    """The curve, and the first minute that is under one."""
    under = [point["minutes"] for point in points if point["fid"] < 1]
    return {
        "recipe": RECIPE,
        "setting": f"{SETTING.sampler}, {SETTING.steps} steps, {SETTING.grid}",
        "samples": DRAW.count,
        "minutes_to_fid_below_1": min(under, default=None),
        "curve": points,
        "environment": environment(),
    }


def told(results: dict[str, Any]) -> str:
    """When it got below 1."""
    minutes = results["minutes_to_fid_below_1"]
    return "never" if minutes is None else f"after {minutes:.1f} minutes"


def table(results: dict[str, Any]) -> str:
    """The curve of a run, as Markdown."""
    rows = [
        f"`{results['recipe']}`, {results['setting']}, {results['samples']:,} samples. "
        f"Below 1: {told(results)}.",
        "",
        f"| minutes | images | {SCORE_HEADS} |",
        "| --- " * 4 + "|",
    ]
    rows += [
        f"| {point['minutes']:.1f} | {point['images']:,.0f} | {' | '.join(scores_told(point))} |"
        for point in results["curve"]
    ]
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
        note(f"{point['minutes']:.1f} minutes: FID {point['fid']:.3f}")
    results = summary(points)
    print(table(results))
    write_json(RESULTS, results)


if __name__ == "__main__":
    main()
