"""Reference statistics: the real images a sample set is measured against."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from underone.data import Dataset, balanced_indices
from underone.metrics.extractor import Extractor, Features, features_of
from underone.metrics.frechet import Gaussian
from underone.metrics.kernel import mean_of_pairs
from underone.metrics.manifold import DENSITY_COVERAGE, PRECISION_RECALL, Manifold
from underone.metrics.moments import Moments

# Enough for KID and precision/recall, at a few megabytes.
FEATURES_KEPT = 10_000


@dataclass(frozen=True)
class Origin:
    """Where statistics come from: which images, in whose features; the hashes decide, not names."""

    name: str
    data: str
    split: str
    data_sha256: str
    extractor: str
    extractor_sha256: str


@dataclass(frozen=True, eq=False)
class ClassMoments:
    """The moments of each of C classes: counts (C,), means (C, D), covariances (C, D, D)."""

    counts: Tensor
    means: Tensor
    covariances: Tensor

    @cached_property
    def gaussians(self) -> tuple[Gaussian, ...]:
        """The Gaussian of each class."""
        pairs = zip(self.means, self.covariances, strict=True)
        return tuple(Gaussian(mean, covariance) for mean, covariance in pairs)


@dataclass(frozen=True, eq=False)
class Reference:
    """The features of real images, once for all metrics.

    `mean` (D,) and `covariance` (D, D), float64, are over the `count` images of a whole split,
    `classes` over each of its classes. `features` are of a part of it, its classes balanced, and
    `held_out` of the other split, which the floor is drawn from; both are float16. Statistics that
    other programs have written hold the moments only; what needs the rest is then left out.
    """

    origin: Origin
    count: int
    mean: Tensor
    covariance: Tensor
    classes: ClassMoments | None = None
    features: Features | None = None
    held_out: Features | None = None

    @property
    def name(self) -> str:
        """What it is called."""
        return self.origin.name

    @cached_property
    def gaussian(self) -> Gaussian:
        """The Gaussian that samples are compared with."""
        return Gaussian(self.mean, self.covariance)

    @cached_property
    def held_out_gaussian(self) -> Gaussian | None:
        """The Gaussian of the split that no model was trained on."""
        return None if self.held_out is None else Gaussian.of(Moments.of(self.held_out.values))

    @cached_property
    def manifold(self) -> Manifold | None:
        """What precision, recall, density and coverage know of the kept features."""
        most = max(PRECISION_RECALL.neighbours, DENSITY_COVERAGE.neighbours)
        if self.features is None or len(self.features) <= most:
            return None
        return Manifold.of(self.features.values, most)

    @cached_property
    def kernel_mean(self) -> float | None:
        """What KID knows of the kept features by themselves."""
        return None if self.features is None else mean_of_pairs(self.features.values.double())

    @cached_property
    def sha256(self) -> str:
        """The hash of the content, whatever it is called and the file is named."""
        origin = self.origin
        told = (origin.data, origin.split, origin.data_sha256, origin.extractor_sha256, self.count)
        digest = hashlib.sha256(repr(told).encode())
        for name, tensor in self.tensors().items():
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    def tensors(self) -> dict[str, Tensor]:
        """All there is of it, by name."""
        found: dict[str, Tensor | None] = {"mu": self.mean, "sigma": self.covariance}
        if self.classes is not None:
            found |= {
                "class_n": self.classes.counts,
                "class_mu": self.classes.means,
                "class_sigma": self.classes.covariances,
            }
        for name, features in (("features", self.features), ("held_out", self.held_out)):
            if features is not None:
                found |= {
                    name: features.values,
                    f"{name}_logits": features.logits,
                    f"{name}_labels": features.labels,
                }
        return {name: tensor for name, tensor in found.items() if tensor is not None}


def build_reference(
    name: str, data: Dataset, held_out: Dataset | None, extractor: Extractor
) -> Reference:
    """The statistics of a whole split, with the features of another one held out.

    Takes memory for the features of both, N x D float32.
    """
    real = features_of(extractor, data.images, data.labels)
    moments = Moments.of(real.values)
    return Reference(
        Origin(name, data.name, data.split, data.sha256, extractor.name, extractor.sha256),
        count=moments.count,
        mean=moments.mean,
        covariance=moments.covariance,
        classes=_class_moments(real, data),
        features=_kept(real, data),
        held_out=None
        if held_out is None
        else features_of(extractor, held_out.images, held_out.labels).to(torch.float16),
    )


def _class_moments(real: Features, data: Dataset) -> ClassMoments | None:
    """Of every class; None where one has too few images for a covariance."""
    counts = data.labels.bincount(minlength=data.num_classes)
    if counts.min() < 2:
        return None
    moments = [Moments.of(real.values[data.labels == label]) for label in range(len(counts))]
    covariances = torch.stack([m.covariance for m in moments])
    # Files hold them in float32, and what is saved must be what was measured with.
    return ClassMoments(
        counts, torch.stack([m.mean for m in moments]), covariances.float().double()
    )


def _kept(real: Features, data: Dataset) -> Features:
    smallest = int(data.labels.bincount(minlength=data.num_classes).min())
    count = min(FEATURES_KEPT, smallest * data.num_classes)
    if count == 0:  # a class without images: nothing can be balanced
        return real.at(torch.arange(min(FEATURES_KEPT, len(real)))).to(torch.float16)
    kept = balanced_indices(data.labels, data.num_classes, count, seed=0)
    return real.at(kept).to(torch.float16)
