"""A picture of the samples nearest to training images."""

from pathlib import Path

import torch
from torch import Tensor

from underone.data import Dataset, save_picture, tile
from underone.errors import UserError
from underone.metrics import Yardstick, features_of
from underone.metrics.neighbours import nearest

PANEL_ROWS, PANEL_NEIGHBOURS = 10, 5


def write_panel(path: Path, samples: Tensor, by: Yardstick, images: Dataset) -> None:
    """A PNG of the samples (N, C, H, W) nearest to training `images`, each beside its nearest.

    `by` has their features (`among_training_images`). Each of the `PANEL_ROWS` samples that are
    nearest to any of them begins a row, the nearest first, and is followed by its
    `PANEL_NEIGHBOURS` nearest: copies among the samples are in the first rows.
    """
    if by.train is None:
        raise ValueError("the yardstick has no features of training images")
    train, shown = by.train, images
    if by.mirrored is not None:
        train, shown = torch.cat([train, by.mirrored]), images.with_mirrored()
    if samples.shape[1:] != shown.images.shape[1:]:
        raise UserError(
            f"samples are {tuple(samples.shape[1:])} and training images "
            f"{tuple(shown.images.shape[1:])} (channels, height, width): no panel shows both"
        )
    features = features_of(by.extractor, samples).values
    found = nearest(features, train, count=min(PANEL_NEIGHBOURS, len(train)))
    rows = found.distances[:, 0].argsort()[:PANEL_ROWS].tolist()
    beside = [torch.cat([samples[row][None], shown.images[found.indices[row]]]) for row in rows]
    save_picture(tile(torch.cat(beside), columns=1 + PANEL_NEIGHBOURS, scale=2), path)
