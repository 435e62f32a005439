"""Reference statistics: the real images a sample set is measured against."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from underone.data import Dataset, balanced_indices, read_arrays, write_arrays
from underone.data.arrays import Arrays
from underone.errors import UserError
from underone.metrics.extractor import Extractor, feature_batches, moments_of
from underone.metrics.frechet import Gaussian, frechet_distance
from underone.metrics.moments import Moments

_FORMAT = 1
# A floor is averaged over as many disjoint draws of real images as there are, up to this many.
_FLOOR_DRAWS = 10


@dataclass(frozen=True)
class Floor:
    """What real held-out images score: the mean of `draws` disjoint sets of `count` each."""

    value: float
    count: int
    draws: int


@dataclass(frozen=True, eq=False)
class Reference:
    """The features of real images: moments of one split, and every feature of the held-out one.

    `mean` and `covariance` are over the `count` images of `split`; `held_out` (M, D) float16 with
    its labels (M,) are what the floor is drawn from. Hashes say which data and which extractor.
    """

    name: str
    data: str
    split: str
    count: int
    mean: Tensor
    covariance: Tensor
    held_out: Tensor
    held_out_labels: Tensor
    data_sha256: str
    extractor: str
    extractor_sha256: str

    @cached_property
    def gaussian(self) -> Gaussian:
        """The Gaussian that samples are compared with."""
        return Gaussian(self.mean, self.covariance)

    @cached_property
    def sha256(self) -> str:
        """The hash of the content, whatever the file is called."""
        origin = (self.data, self.split, self.count, self.data_sha256, self.extractor_sha256)
        digest = hashlib.sha256(repr(origin).encode())
        for tensor in (self.mean, self.covariance, self.held_out, self.held_out_labels):
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    def floor(self, count: int) -> Floor:
        """The FID of `count` real held-out images, their classes balanced, against this reference.

        What new images of the same kind score: samples that go below it are nearer to the training
        set than unseen real images are, which is no merit. With more images asked than are held
        out, all of them are used; the result says how many.
        """
        classes = int(self.held_out_labels.max()) + 1
        smallest = int(self.held_out_labels.bincount().min())
        count = min(count, smallest * classes)
        draws = max(1, min(_FLOOR_DRAWS, smallest * classes // count))
        indices = balanced_indices(self.held_out_labels, classes, count * draws, seed=0)
        scores = [
            frechet_distance(Gaussian.of(Moments.of(self.held_out[chunk])), self.gaussian)
            for chunk in indices.split(count)
        ]
        return Floor(sum(scores) / len(scores), count, len(scores))

    def save(self, path: Path) -> None:
        """Write an .npz with pytorch-fid's `mu` and `sigma`, and the rest beside them."""
        arrays = {
            "format": np.array(_FORMAT),
            "mu": self.mean.numpy(),
            "sigma": self.covariance.numpy(),
            "n": np.array(self.count),
            "held_out": self.held_out.numpy(),
            "held_out_labels": self.held_out_labels.to(torch.uint8).numpy(),
            **{name: np.array(getattr(self, name)) for name in _TEXTS},
        }

        write_arrays(path, arrays)


_TEXTS = ("name", "data", "split", "data_sha256", "extractor", "extractor_sha256")


def build_reference(name: str, train: Dataset, test: Dataset, extractor: Extractor) -> Reference:
    """The statistics of a whole training split, with the test split's features held out."""
    moments = moments_of(extractor, train.images)
    held_out = torch.cat(list(feature_batches(extractor, test.images)))
    return Reference(
        name=name,
        data=train.name,
        split=train.split,
        count=moments.count,
        mean=moments.mean,
        covariance=moments.covariance,
        held_out=held_out.to(torch.float16),
        held_out_labels=test.labels,
        data_sha256=train.sha256,
        extractor=extractor.name,
        extractor_sha256=extractor.sha256,
    )


def load_reference(path: Path) -> Reference:
    """Read what `Reference.save` wrote; anything else is a `UserError`."""
    names = {"format", "mu", "sigma", "n", "held_out", "held_out_labels", *_TEXTS}
    arrays = read_arrays(path, names.intersection, "reference", "reference statistics")
    missing = names - arrays.keys()
    if missing:
        raise UserError(f"{path} is no underone reference: it lacks {', '.join(sorted(missing))}")
    if str(arrays["format"]) != str(_FORMAT):
        raise UserError(f"{path} has format {arrays['format']}, this version reads {_FORMAT}")
    try:
        reference = Reference(
            count=int(arrays["n"]),
            mean=_float64(arrays, "mu"),
            covariance=_float64(arrays, "sigma"),
            held_out=torch.from_numpy(arrays["held_out"]),
            held_out_labels=torch.from_numpy(arrays["held_out_labels"].astype(np.int64)),
            **{name: str(arrays[name]) for name in _TEXTS},
        )
        _check(reference)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} is no underone reference: {error}") from None
    return reference


def _float64(arrays: Arrays, name: str) -> Tensor:
    if arrays[name].dtype.kind != "f":
        raise ValueError(f"{name} must be real numbers, not {arrays[name].dtype}")
    return torch.from_numpy(arrays[name].astype(np.float64))


def _check(reference: Reference) -> None:
    """A `ValueError` unless the parts are of one size, finite, and every class is held out."""
    size, held_out = reference.mean.numel(), len(reference.held_out)
    shapes = {
        "mu": (reference.mean, (size,)),
        "sigma": (reference.covariance, (size, size)),
        "held_out": (reference.held_out, (held_out, size)),
        "held_out_labels": (reference.held_out_labels, (held_out,)),
    }
    for name, (tensor, shape) in shapes.items():
        if tuple(tensor.shape) != shape or tensor.numel() == 0:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")
        if not tensor.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinite values")
    covariance = reference.covariance
    if not torch.allclose(covariance, covariance.T, rtol=1e-8, atol=1e-12):
        raise ValueError("sigma is not symmetric")
    if torch.linalg.eigvalsh(covariance)[0] < -1e-8 * covariance.trace().abs():
        raise ValueError("sigma has negative eigenvalues: it is no covariance")
    if reference.held_out_labels.bincount().min() == 0:
        raise ValueError("a class has no images held out")
