"""The samples of a study's best setting that are nearest to training images, beside these."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from underone.data import save_picture, tile
from underone.evaluation import (
    PANEL_NEIGHBOURS,
    nearest_panel,
    training_features,
    training_images,
)
from underone.generation import generate
from underone.metrics import features_of
from underone.study.answers import standings
from underone.study.run import Run

_SAMPLES = 1000


def draw_panel(run: Run, on_images: Callable[[int], object], root: Path | None = None) -> Path:
    """Write `figures/nearest.png` into a study's folder; `on_images` hears of training images.

    Of the first samples of the setting with the lowest FID. A `UserError` where the training images
    are not at hand; `root` is where they are.
    """
    by = run.bench.yardsticks[0]
    best = min(standings(run), key=lambda each: (-each.first.draw.count, each.fid)).first
    images = training_images(by.reference, root)
    if run.bench.models[best.model].trained_on_flips:
        images = images.with_mirrored
    train = training_features(by.extractor, images, on_images)
    draw = replace(best.draw, count=min(best.draw.count, _SAMPLES))
    samples = generate(
        run.bench.models[best.model], best.setting, draw, precision=run.bench.precision
    ).images
    shown = nearest_panel(samples, features_of(by.extractor, samples).values, train, images.images)
    path = run.folder.path / "figures" / "nearest.png"
    save_picture(tile(shown, columns=1 + PANEL_NEIGHBOURS, scale=2), path)
    return path
