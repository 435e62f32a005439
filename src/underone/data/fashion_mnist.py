"""FashionMNIST: 28x28 greyscale images of clothes in ten classes (Xiao, Rasul, Vollgraf, 2017)."""

from pathlib import Path

import torch

from underone.data.dataset import Dataset
from underone.data.idx import read_idx
from underone.errors import UserError

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def read_fashion_mnist(images_path: Path, labels_path: Path, split: str) -> Dataset:
    """One split from its two IDX files; files that do not fit each other are a `UserError`."""
    images = read_idx(images_path, rank=3)
    labels = read_idx(labels_path, rank=1).to(torch.int64)
    if images.shape[1:] != (28, 28):
        raise UserError(f"{images_path} holds images of {tuple(images.shape[1:])}, not (28, 28)")
    if len(images) != len(labels):
        raise UserError(
            f"{images_path} has {len(images)} images but {labels_path} has {len(labels)} labels: "
            f"they are not of one split"
        )
    if labels.max() >= len(CLASS_NAMES):
        raise UserError(f"{labels_path} holds label {int(labels.max())}, expected 0..9")
    return Dataset("fashion-mnist", split, images.unsqueeze(1), labels, CLASS_NAMES)
