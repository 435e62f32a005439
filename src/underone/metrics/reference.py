"""Reference statistics: the real images a sample set is measured against."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from underone.data import Dataset
from underone.errors import UserError
from underone.metrics.extractor import Extractor, Features, features_of
from underone.metrics.frechet import Gaussian
from underone.metrics.kernel import mean_of_pairs
from underone.metrics.manifold import DENSITY_COVERAGE, PRECISION_RECALL, Manifold
from underone.metrics.moments import Moments

# Enough for KID and precision/recall, at a few megabytes.
FEATURES_KEPT = 10_000
# In standard deviations; float16 still resolves a hundredth of one at this distance from 0.
_FAR = 16


@dataclass(frozen=True)
class Origin:
    """The images and the extractor of statistics, which the hashes identify, not the names."""

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
    """Statistics of real images' features, for all metrics.

    `mean` (D,) and `covariance` (D, D), float64, are over the `count` images of a whole split,
    `classes` over each of its classes. `kept` are the features of a part of it, in random order and
    with its class proportions, and `kept_held_out` those of the other split, from which the floor
    is drawn; both are float16 deviations from `centre`. Statistics written by other programs hold
    the moments only, and metrics that need more are left out.
    """

    origin: Origin
    count: int
    mean: Tensor
    covariance: Tensor
    classes: ClassMoments | None = None
    kept: Features | None = None
    kept_held_out: Features | None = None

    @property
    def name(self) -> str:
        """The name of the reference."""
        return self.origin.name

    @property
    def of_training_images(self) -> bool:
        """Whether it is of the training split, so that the other one is held out."""
        return self.origin.split == "train"

    @cached_property
    def gaussian(self) -> Gaussian:
        """The Gaussian that samples are compared with."""
        return Gaussian(self.mean, self.covariance)

    @cached_property
    def centre(self) -> Tensor:
        """The point that kept features are deviations from, (D,); see `centre_of`."""
        return centre_of(self.mean, self.covariance)

    @cached_property
    def features(self) -> Features | None:
        """The kept features, restored to float64."""
        return self._restored(self.kept)

    @cached_property
    def held_out(self) -> Features | None:
        """The features of the held-out split, restored to float64."""
        return self._restored(self.kept_held_out)

    @cached_property
    def held_out_gaussian(self) -> Gaussian | None:
        """The Gaussian of the held-out split; None if it has fewer than two images."""
        if self.held_out is None or len(self.held_out) < 2:
            return None
        return Gaussian.of(Moments.of(self.held_out.values))

    @cached_property
    def manifold(self) -> Manifold | None:
        """The kept features as precision, recall, density and coverage use them."""
        most = max(PRECISION_RECALL.neighbours, DENSITY_COVERAGE.neighbours)
        if self.features is None or len(self.features) <= most:
            return None
        return Manifold.of(self.features.values, most)

    @cached_property
    def kernel_mean(self) -> float | None:
        """The mean of KID's kernel over pairs of kept features."""
        return None if self.features is None else mean_of_pairs(self.features.values)

    @cached_property
    def sha256(self) -> str:
        """The hash of the content, independent of the names of the reference, data and file."""
        origin = self.origin
        identity = (origin.split, origin.data_sha256, origin.extractor_sha256, self.count)
        digest = hashlib.sha256(repr(identity).encode())
        for name, tensor in self.tensors().items():
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    def as_kept(self, values: Tensor) -> Tensor:
        """Features (N, D) rounded as the kept ones are, float64; `UserError` if that overflows."""
        kept = deviations(values, self.centre)
        if not kept.isfinite().all():
            raise UserError(
                "features of the samples are too far from those of real images to be compared "
                "in float16, as the reference keeps them: scale what the extractor returns"
            )
        return kept.double() + self.centre

    def tensors(self) -> dict[str, Tensor]:
        """All its tensors, by name."""
        found: dict[str, Tensor | None] = {"mu": self.mean, "sigma": self.covariance}
        if self.classes is not None:
            found |= {
                "class_n": self.classes.counts,
                "class_mu": self.classes.means,
                "class_sigma": self.classes.covariances,
            }
        for name, features in (("features", self.kept), ("held_out", self.kept_held_out)):
            if features is not None:
                found |= {
                    name: features.values,
                    f"{name}_logits": features.logits,
                    f"{name}_labels": features.labels,
                }
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def _restored(self, kept: Features | None) -> Features | None:
        if kept is None:
            return None
        return Features(kept.values.double() + self.centre, kept.logits, kept.labels)


def build_reference(
    name: str,
    data: Dataset,
    held_out: Dataset | None,
    extractor: Extractor,
    found_as: str | None = None,
) -> Reference:
    """The statistics of the split `data`, with features of the split `held_out`.

    `found_as`: how the extractor is found again, for example the path of its folder, where its name
    is not enough. The features of both splits, N x D float32, are held in memory. Fewer than two
    images, or features that are not finite, are a `UserError`.
    """
    if len(data) < 2:
        raise UserError(f"a reference needs at least 2 images, {data.name} has {len(data)}")
    for split in (data,) if held_out is None else (data, held_out):
        if (split.labels.bincount() == 0).any():
            raise UserError(f"a class of {data.name} has no images in {split.split}: leave it out")
    real = features_of(extractor, data.images, data.labels)
    moments = Moments.of(real.values)
    others = None
    if held_out is not None:
        others = features_of(extractor, held_out.images, held_out.labels)
    centre = centre_of(moments.mean, moments.covariance)
    reference = Reference(
        Origin(
            name, data.name, data.split, data.sha256, found_as or extractor.name, extractor.sha256
        ),
        count=moments.count,
        mean=moments.mean,
        covariance=moments.covariance,
        classes=_class_moments(real, data),
        kept=_as_deviations(real.at(_part(data)), centre),
        kept_held_out=None if others is None else _as_deviations(others, centre),
    )
    for tensor in reference.tensors().values():
        if not tensor.isfinite().all():
            raise UserError(
                f"the features of {extractor.name} are too large to be kept as float16: scale them"
            )
    return reference


def centre_of(mean: Tensor, covariance: Tensor) -> Tensor:
    """The mean of each feature that is far from 0 relative to its deviation, else 0, (D,).

    Rounded to float16, a feature of mean 5000 would lose all of its variation; but in a feature
    around 0, zeros and other short numbers should stay exact.
    """
    return torch.where(mean.abs() > _FAR * covariance.diagonal().clamp(min=0).sqrt(), mean, 0.0)


def deviations(values: Tensor, centre: Tensor) -> Tensor:
    """Features (N, D) as they are kept: float16 deviations from a centre."""
    return (values.double() - centre).to(torch.float16)


def _as_deviations(features: Features, centre: Tensor) -> Features:
    logits = None if features.logits is None else features.logits.to(torch.float16)
    return Features(deviations(features.values, centre), logits, features.labels)


def _class_moments(real: Features, data: Dataset) -> ClassMoments | None:
    """The moments of every class; None if one has too few images for a covariance."""
    counts = data.labels.bincount(minlength=data.num_classes)
    if counts.min() < 2:
        return None
    moments = [Moments.of(real.values[data.labels == label]) for label in range(len(counts))]
    covariances = torch.stack([m.covariance for m in moments])
    # Rounded to float32 as in files, so that a saved reference measures the same.
    return ClassMoments(
        counts, torch.stack([m.mean for m in moments]), covariances.float().double()
    )


def _part(data: Dataset) -> Tensor:
    """The images whose features are kept: of each class its share, in random order."""
    if len(data) <= FEATURES_KEPT:
        return _shuffled(torch.arange(len(data)))
    parts = []
    for label in range(data.num_classes):
        members = (data.labels == label).nonzero().flatten()
        share = max(1, round(FEATURES_KEPT * len(members) / len(data)))
        parts.append(_shuffled(members)[:share])
    return _shuffled(torch.cat(parts))


def _shuffled(indices: Tensor) -> Tensor:
    return indices[torch.randperm(len(indices), generator=torch.Generator().manual_seed(0))]
