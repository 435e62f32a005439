"""CIFAR-10, binary version: 32x32 RGB images in ten classes (Krizhevsky, 2009).

A record is 3,073 bytes: the label, then the red, green and blue planes, row by row.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from underone.data.archive import open_archive
from underone.data.compressed import read_at_most
from underone.data.dataset import Dataset
from underone.errors import UserError

FOLDER = "cifar-10-batches-bin"
CLASS_NAMES_FILE = "batches.meta.txt"
BATCHES = {
    "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test": ("test_batch.bin",),
}
RECORD = 1 + 3 * 32 * 32
LARGEST_BATCH = 10_000 * RECORD
LARGEST_ARCHIVE = 6 * LARGEST_BATCH + 1_000_000


def read_cifar10(source: Path, split: str) -> Dataset:
    """One split from `cifar-10-binary.tar.gz` or from the folder it extracts to.

    The archive is read in memory: nothing is extracted to disk. A file that is missing, damaged
    or of another format is a `UserError`.
    """
    names = (CLASS_NAMES_FILE, *BATCHES[split])
    members = _read_folder(source, names) if source.is_dir() else _read_archive(source, names)
    class_names = _parse_class_names(members[CLASS_NAMES_FILE], source)
    batches = [_parse_batch(members[name], f"{name} in {source}") for name in BATCHES[split]]
    images = torch.cat([images for images, _ in batches])
    labels = torch.cat([labels for _, labels in batches])
    return Dataset("cifar10", split, images, labels, class_names)


def _read_folder(folder: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    return {name: read_at_most(folder / name, LARGEST_BATCH) for name in names}


def _read_archive(path: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    with open_archive(path, LARGEST_ARCHIVE, "CIFAR-10, binary version") as archive:
        return {name: archive.read(f"{FOLDER}/{name}", LARGEST_BATCH) for name in names}


def _parse_class_names(data: bytes, source: Path) -> tuple[str, ...]:
    names = tuple(data.decode("ascii", errors="replace").split())
    if len(names) != 10 or len(set(names)) != 10:
        raise UserError(
            f"{CLASS_NAMES_FILE} in {source} must name ten classes, not {len(set(names))}"
        )
    return names


def _parse_batch(data: bytes, source: str) -> tuple[Tensor, Tensor]:
    if not data or len(data) % RECORD:
        raise UserError(
            f"{source} is truncated or damaged: {len(data)} bytes are not a whole number of "
            f"{RECORD}-byte records"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    labels = torch.from_numpy(records[:, 0].astype(np.int64))
    if labels.max() > 9:
        raise UserError(f"{source} holds label {int(labels.max())}, expected 0..9")
    images = torch.from_numpy(records[:, 1:].copy()).reshape(-1, 3, 32, 32)
    return images, labels
