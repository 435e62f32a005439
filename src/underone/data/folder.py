"""A folder of images by class: ROOT/CLASS/**/*.png, or ROOT/train/CLASS and ROOT/test/CLASS."""

from pathlib import Path

import torch

from underone.data.dataset import SPLITS, Dataset
from underone.data.image_files import is_hidden, is_image_file, read_images
from underone.errors import UserError


def read_folder(root: Path, split: str) -> Dataset:
    """One split of a folder of images; the classes are its sub-folders, sorted by name.

    Sub-folders `train` and `test`, if both exist, are the splits; else everything is "train".
    Images must be of one size, all grey or all RGB; anything else is a `UserError`.
    """
    members = files_by_class(root, split)
    labels = [label for label, paths in enumerate(members.values()) for _ in paths]
    return Dataset(
        name=root.resolve().name,
        split=split,
        images=read_images([path for paths in members.values() for path in paths]),
        labels=torch.tensor(labels, dtype=torch.int64),
        class_names=tuple(folder.name for folder in members),
    )


def files_by_class(root: Path, split: str) -> dict[Path, list[Path]]:
    """The image files of each class folder of a split, all sorted by name."""
    folder = _split_folder(root, split)
    class_folders = _subfolders(folder)
    if not class_folders:
        raise UserError(f"{folder} has no sub-folders: put the images of each class in one")
    return {class_folder: _image_files(class_folder) for class_folder in class_folders}


def folder_splits(root: Path) -> tuple[str, ...]:
    """The splits a folder of images has: both if it is divided, else "train" alone."""
    return SPLITS if all((root / name).is_dir() for name in SPLITS) else SPLITS[:1]


def _split_folder(root: Path, split: str) -> Path:
    folders = {name: root / name for name in SPLITS if (root / name).is_dir()}
    if folder_splits(root) == SPLITS:
        _check_same_classes(folders["train"], folders["test"])
        return folders[split]
    # Taking ROOT/train and, say, ROOT/val as two classes would silently mislabel everything.
    for name, folder in folders.items():
        if _subfolders(folder):
            missing = "test" if name == "train" else "train"
            raise UserError(
                f"{root} has {name}/CLASS folders but no {missing}: add {missing}/CLASS"
            )
    if split == "test":
        raise UserError(
            f"{root} has no test split: put the classes in {root}/train and {root}/test"
        )
    return root


def _check_same_classes(train: Path, test: Path) -> None:
    # Labels are indices into the sorted names: one class more or less would shift all that follow.
    differing = {folder.name for folder in _subfolders(train)} ^ {
        folder.name for folder in _subfolders(test)
    }
    if differing:
        raise UserError(
            f"{train} and {test} must have the same classes; only one of them has "
            f"{', '.join(sorted(differing))}"
        )


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")),
        key=lambda path: path.name,
    )


def _image_files(folder: Path) -> list[Path]:
    paths = [
        path
        for path in folder.rglob("*")
        if is_image_file(path) and not is_hidden(path.relative_to(folder))
    ]
    if not paths:
        raise UserError(f"{folder} holds no images: add some or delete it")
    return sorted(paths, key=lambda path: path.relative_to(folder).as_posix())
