"""A picture of the best setting's samples that are nearest to training images, beside those."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from underone.data import Dataset
from underone.evaluation import among_training_images, write_panel
from underone.files import whole_files
from underone.generation import generate
from underone.study.answers import standings
from underone.study.run import StudyRun

_SAMPLES = 1000


def draw_panel(run: StudyRun, images: Dataset, on_images: Callable[[int], object]) -> Path:
    """Write the panel of the setting that leads on the first block, and remove older panels.

    `images` are those that the models were trained on; `on_images` is told of them as they are
    searched, twice where `run.bench.trained_on_flips`.
    """
    every = standings(run)
    asked = [each.first for each in every if each.first.setting.uses_labels]
    best = min(
        asked or [each.first for each in every], key=lambda first: (-first.draw.count, first.fid)
    )
    flipped = run.bench.trained_on_flips
    by = run.bench.yardsticks[0]
    by = among_training_images(by, images, flipped=flipped, on_images=on_images)
    draw = replace(best.draw, count=min(best.draw.count, _SAMPLES))
    model = run.bench.models[best.model]
    samples = generate(model, best.setting, draw, precision=run.bench.precision).images
    path = run.folder.panel_path(best.id)
    write_panel(path, samples, by, images)
    for other in whole_files(path.parent, "nearest-*.png"):
        if other != path:
            other.unlink()
    return path
