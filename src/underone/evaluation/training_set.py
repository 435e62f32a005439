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
    """The images of the training split of a reference's data set; a `UserError` if not found.

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
            f"the {origin.data} found here is not the data that reference {reference.name} was "
            "made of: name the right folder with --root"
        )
    return images


def among_training_images(
    by: Yardstick, images: Dataset, *, flipped: bool, on_images: OnImages = lambda images: None
) -> Yardstick:
    """The yardstick, with the features of the images that memorisation looks for copies of.

    If `flipped`, for models trained on mirror images too, also with those of the mirror images.
    """
    train = training_features(by.extractor, images, on_images)
    mirrored = training_features(by.extractor, images.mirrored(), on_images) if flipped else None
    return replace(by, train=train, mirrored=mirrored)


def training_features(
    extractor: Extractor, images: Dataset, on_images: OnImages = lambda images: None
) -> Tensor:
    """The features (M, D) of all training images, float32; cached on disk.

    The cache is keyed by the hashes of the images and of the extractor.
    """
    name = f"{images.sha256[:24]}-{extractor.sha256[:24]}.npz"
    path = cache_folder() / "features" / name
    if path.exists():
        with suppress(UserError, KeyError):  # a damaged file is computed again
            stored = read_arrays(path, {"features"}.intersection, "features", "features")
            on_images(len(images))
            return torch.from_numpy(stored["features"])
    parts = []
    for batch in images.images.split(BATCH):
        parts.append(extractor(batch).values)
        on_images(len(batch))
    features = torch.cat(parts)
    with suppress(OSError):  # without a cache they are computed again next time
        write_arrays(path, {"features": features.numpy()})
    return features
