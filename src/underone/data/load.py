"""Load a data set by name."""

import os
from contextlib import suppress
from pathlib import Path

from underone.data.cifar import read_cifar10
from underone.data.dataset import SPLITS, Dataset, check_split
from underone.data.fashion_mnist import read_fashion_mnist
from underone.data.folder import folder_splits, read_folder
from underone.data.locate import locate_cifar10, locate_fashion_mnist, locate_noto_emoji
from underone.data.noto_emoji import read_noto_emoji
from underone.errors import UserError, unknown

DATASET_NAMES = ("cifar10", "fashion-mnist", "noto-emoji")
LICENCES = {
    "cifar10": "none stated; its author asks to cite Krizhevsky 2009",
    "fashion-mnist": "MIT",
    "noto-emoji": "Apache-2.0 (pictures), MIT (the package they come in)",
}


def available_splits(name: str) -> tuple[str, ...]:
    """The splits of a data set: both, unless it is a folder of images that is not divided."""
    folder = Path(name).expanduser()
    if name in DATASET_NAMES or not folder.is_dir():
        return SPLITS
    return folder_splits(folder)


def load_dataset(name: str, split: str = "train", root: Path | None = None) -> Dataset:
    """The "train" or "test" split of a data set.

    `name` is "fashion-mnist", "cifar10", "noto-emoji", or the path of a folder of images by class.
    The files of a named set are looked for in `root` alone if it is given, else in the cache and on
    the system, and are downloaded if not found. A user's mistake is a `UserError`.
    """
    check_split(split)
    if name == "fashion-mnist":
        images, labels = locate_fashion_mnist(split, root)
        return read_fashion_mnist(images, labels, split)
    if name == "cifar10":
        return read_cifar10(locate_cifar10(root), split)
    if name == "noto-emoji":
        return read_noto_emoji(locate_noto_emoji(root), split)
    if root is not None:
        known = ", ".join(DATASET_NAMES)
        raise UserError(f"a root goes with the named data sets only ({known}), not with {name!r}")
    folder = Path(name).expanduser()
    if folder.is_dir():
        return read_folder(folder, split)
    if os.sep in name:
        raise UserError(f"no such folder of images: {name}")
    raise unknown("data set", name, DATASET_NAMES)


def find_training_split(name: str, root: Path | None = None) -> Dataset | None:
    """The training images that are called `name`: by that name, or in the folder `root`.

    `root` is where a named data set's files are, or else the folder of images itself. None if
    `name` is not a named data set and no `root` is given.
    """
    if name in DATASET_NAMES:
        return _named(name, root)
    return None if root is None else load_dataset(str(root), "train")


def _named(name: str, root: Path | None) -> Dataset:
    """A named data set, or else the folder of images `root`."""
    try:
        return load_dataset(name, "train", root)
    except UserError:
        if root is not None:
            with suppress(UserError):
                return load_dataset(str(root), "train")
        raise
