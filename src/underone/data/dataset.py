"""A labelled set of images in memory, and balanced subsets of it."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from underone.data.images import check_images
from underone.errors import UserError, unknown

SPLITS = ("train", "test")


@dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a data set; two are the same if their `sha256` are.

    `images` is uint8 (N, C, H, W); `labels` is int64 (N,), each an index into `class_names`.
    Anything else raises `ValueError`.
    """

    name: str
    split: str
    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        check_split(self.split)
        check_images(self.images)
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"labels must be int64 ({len(self.images)},), one an image, "
                f"not {self.labels.dtype} {tuple(self.labels.shape)}"
            )
        if ((self.labels < 0) | (self.labels >= self.num_classes)).any():
            raise ValueError(f"labels must lie in 0..{self.num_classes - 1}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """The number of classes, which is also the null label."""
        return len(self.class_names)

    @property
    def class_images(self) -> tuple[int, ...]:
        """How many images of each class there are."""
        return tuple(self.labels.bincount(minlength=self.num_classes).tolist())

    def mirrored(self) -> "Dataset":
        """The mirror image of each image."""
        return replace(self, images=self.images.flip(3))

    def with_mirrored(self) -> "Dataset":
        """The images, then the mirror image of each."""
        images = torch.cat([self.images, self.mirrored().images])
        return replace(self, images=images, labels=self.labels.repeat(2))

    @cached_property
    def sha256(self) -> str:
        """The hexadecimal SHA-256 of the images and labels: their shapes, then their bytes."""
        digest = hashlib.sha256(f"{tuple(self.images.shape)} {tuple(self.labels.shape)}".encode())
        digest.update(self.images.cpu().contiguous().numpy().data)
        digest.update(self.labels.cpu().contiguous().numpy().data)
        return digest.hexdigest()


def check_split(split: str) -> None:
    """Raise `UserError` unless `split` is one a data set can have."""
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)


def balanced_indices(labels: Tensor, classes: int, count: int, seed: int) -> Tensor:
    """Int64 indices (count,) of a random subset of `labels`, its classes as equal as possible.

    Drawn without replacement and interleaved: entry i is of class i mod C. With the same seed, a
    smaller subset is the beginning of a larger one. A class with too few images is a `UserError`.
    """
    if count < 1:
        raise UserError(f"a subset needs at least one image, not {count}")
    generator = np.random.default_rng(seed)
    subset = torch.empty(count, dtype=torch.int64)
    for label in range(classes):
        members = (labels == label).nonzero().flatten()
        wanted = len(range(label, count, classes))
        if len(members) < wanted:
            raise UserError(
                f"class {label} has {len(members)} images, but a balanced subset of {count} needs "
                f"{wanted}: ask for fewer"
            )
        drawn = torch.from_numpy(generator.permutation(len(members))[:wanted])
        subset[label::classes] = members[drawn]
    return subset
