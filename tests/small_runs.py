"""What tests of runs share: the smallest run that still has everything."""

from pathlib import Path

import torch

from underone.data import Dataset
from underone.training.begin import start
from underone.training.journal import read_log
from underone.training.recipe import DiffusionRecipe, load_recipe
from underone.training.run import Run

SLICE = Path(__file__).parent / "data" / "fashion-mnist"
CPU = torch.device("cpu")
HORIZON = 100
LOG = "log.jsonl"
# The least that still has everything: dropout, augmentation, label dropout, an average.
SMALL = (
    "batch_size=8",
    "log_every=5",
    "network.patch=7",
    "network.multipliers=[1]",
    "network.attention=[]",
    "network.dropout=0.1",
    "augmentation.flip=true",
    "augmentation.shift=1",
    "optimisation.learning_rate=0.005",
)


def small(*changes: str) -> DiffusionRecipe:
    recipe = load_recipe("tiny", [*SMALL, *changes])
    assert isinstance(recipe, DiffusionRecipe)
    return recipe


def begin(folder: Path, images: Dataset, *changes: str, steps: int = HORIZON) -> Run:
    return start(folder, "tiny", small(*changes), images, CPU, steps=steps)


def advance(run: Run, until: int) -> None:
    for _ in run.advance(lambda: run.state.step >= until):
        pass


def whole_run(folder: Path, images: Dataset) -> Path:
    """The folder of a run that nothing ever happened to."""
    run = begin(folder, images)
    advance(run, HORIZON)
    run.save()
    return folder


def log_of(folder: Path) -> list[dict[str, float]]:
    """The log without its times."""
    timed = ("images_per_second", "seconds")
    return [{k: v for k, v in line.items() if k not in timed} for line in read_log(folder / LOG)]
