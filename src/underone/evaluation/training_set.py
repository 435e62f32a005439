"""The images that models were trained on, and their features, among which copies are looked for."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from underone.data import Dataset, cache_folder, find_training_split, read_arrays, write_arrays
from underone.errors import UserError
from underone.metrics import Extractor, Reference, Yardstick
from underone.metrics.extractor import BATCH

OnImages = Callable[[int], object]


def training_images(reference: Reference, root: Path | None = None) -> Dataset:
    """The images of the training split of a reference's data set; `UserError` if not at hand.

    `root` is where a named data set's files are, or else the folder of images itself.
    """
    origin = reference.origin
    images = find_training_split(origin.data, root)
    if images is None:
        raise UserError(
            f"reference {reference.name} was made of the images of {origin.data}: name the folder "
            "of its training images with --root"
        )
    if origin.split == "train" and images.sha256 != origin.data_sha256:
        raise UserError(
            f"the {origin.data} at hand is other data than reference {reference.name} was made of"
        )
    return images


def among_training_images(
    by: Yardstick, images: Dataset, *, flipped: bool, on_images: OnImages = lambda images: None
) -> Yardstick:
    """A yardstick with the features of the images that memorisation looks for copies of.

    And of their mirror images, where models were trained on these: `flipped`.
    """
    train = training_features(by.extractor, images, on_images)
    mirrored = training_features(by.extractor, images.mirrored(), on_images) if flipped else None
    return replace(by, train=train, mirrored=mirrored)


def training_features(
    extractor: Extractor, images: Dataset, on_images: OnImages = lambda images: None
) -> Tensor:
    """The features (M, D) of all training images, float32; kept for the next time.

    They are found again by what decides them, the hashes of images and extractor.
    """
    name = f"{images.sha256[:24]}-{extractor.sha256[:24]}.npz"
    path = cache_folder() / "features" / name
    if path.exists():
        with suppress(UserError, KeyError):  # a damaged file is made anew
            stored = read_arrays(path, {"features"}.intersection, "features", "features")
            on_images(len(images))
            return torch.from_numpy(stored["features"])
    parts = []
    for batch in images.images.split(BATCH):
        parts.append(extractor(batch).values)
        on_images(len(batch))
    features = torch.cat(parts)
    with suppress(OSError):  # where nothing can be kept they are computed again next time
        write_arrays(path, {"features": features.numpy()})
    return features
