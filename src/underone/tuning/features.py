"""What a model itself sees in images, and how far a sampler's are from the data's in that."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from underone.checkpoint import DiffusionModel
from underone.diffusion import Estimate, Node, node_at
from underone.networks.contraction import Contraction

# At little noise the network looks at texture, at more of it at whole things.
LOOKING_TIMES = (0.01, 0.1)
# Where it is asked how sure it is of the class: most of the class can be seen, and not all.
EVIDENCE_TIME = 0.2
# Evidence differs from image to image far more than its mean may be off, so that its share of its
# own variance is small: with this weight it counts about as much as all activations together.
_EVIDENCE_WEIGHT = 20.0


@dataclass(frozen=True)
class OwnFeatures:
    """What the network of `model` makes of images that are noised again.

    At each of `LOOKING_TIMES` the activations of its first level, of its last and of its middle,
    averaged over pixels. Last, with `evidence`, that of the class c at `EVIDENCE_TIME`:
    |z_null - z|^2 - |z_c - z|^2 and |z_c - z_null|, sums over pixels, with z the noise and z_c,
    z_null what the network takes for it given the class and not. Integrated over all noise levels
    the first would be log p(c | x) up to a constant (Li et al. 2023, "Your diffusion model is
    secretly a zero-shot classifier", section 3); the second is how far classifier-free guidance
    would move the image. Without it the classes of samples are left weaker than those of the data:
    activations tell little of how sure a class is. It needs a network with a branch without labels.
    """

    model: DiffusionModel
    autocast: torch.dtype | None
    evidence: bool

    def __call__(
        self, x0: Tensor, label: Tensor | None, noise: Callable[[], Tensor]
    ) -> list[Tensor]:
        """Features (B, D), float64, of x0 (B, C, H, W) in [-1, 1]; differentiable in x0.

        `label` (B,) is what the network is told the images are; None where it knows no classes.
        """
        looks = [self._look(x0, self._node(t), label, noise()) for t in LOOKING_TIMES]
        features = [feature for look in looks for feature in look]
        if self.evidence and label is not None:
            features.append(self._evidence(x0, self._node(EVIDENCE_TIME), label, noise()))
        return features

    def _node(self, time: float) -> Node:
        return node_at(self.model.config.schedule, torch.tensor(time, dtype=torch.float64))

    def _look(self, x0: Tensor, node: Node, label: Tensor | None, noise: Tensor) -> list[Tensor]:
        # Whatever wraps it to make it faster, it is a U-Net.
        network = cast("Contraction", self.model.network)
        prediction = self.model.config.prediction
        x = node.alpha * x0 + node.sigma * noise
        condition = prediction.condition(node)
        if condition is not None:
            condition = condition.to(x.device, torch.float32).expand(len(x))
        with torch.autocast(x.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            embedding = network.embed(x, condition, label)
            middle, skips = network.contract(prediction.input(x, node), embedding)
        chosen = (skips[network.config.blocks], skips[-1], middle)
        return [activations.mean(dim=(2, 3)).double() for activations in chosen]

    def _evidence(self, x0: Tensor, node: Node, label: Tensor, noise: Tensor) -> Tensor:
        null = torch.full_like(label, cast("int", self.model.num_classes))
        denoiser = self.model.denoiser(self.autocast)
        x = node.alpha * x0 + node.sigma * noise
        given, without = (
            Estimate(node, x, denoiser(x, node, told)).noise.double() for told in (label, null)
        )
        gain = (without - noise).square() - (given - noise).square()
        moved = (given - without).square()
        return torch.stack([_summed(gain), _summed(moved).sqrt()], dim=1)


def _summed(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1)


@dataclass(frozen=True)
class FrechetTo:
    """|m - mean|^2 + tr(S + covariance - 2 (covariance^1/2 S covariance^1/2)^1/2), S and m given.

    The squared Fréchet distance of Gaussians (Dowson and Landau 1982), as FID has it, but
    differentiable in the features it is given.
    """

    mean: Tensor
    covariance: Tensor
    root: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "FrechetTo":
        """The distance to the distribution of `features` (N, D)."""
        covariance = torch.cov(features.T)
        values, vectors = torch.linalg.eigh(covariance)
        root = vectors * values.clamp(min=0).sqrt() @ vectors.T
        return cls(features.mean(0), covariance, root)

    def __call__(self, features: Tensor) -> Tensor:
        """The distance of `features` (M, D), a scalar. M should be well above D."""
        covariance = torch.cov(features.T)
        values = torch.linalg.eigvalsh(self.root @ covariance @ self.root)
        # The root of a rounding error below 0 has no value, and that of 0 no gradient.
        cross = values.clamp(min=1e-12 * self.covariance.trace()).sqrt().sum()
        shift = (features.mean(0) - self.mean).square().sum()
        return shift + covariance.trace() + self.covariance.trace() - 2 * cross


@dataclass(frozen=True)
class Unlikeness:
    """How unlike two sets of images are: 0 where they are alike.

    The mean over all features of their Fréchet distance over their variance in the data, so that
    no depth counts for more because its numbers are larger; evidence, if there is, counts more.
    """

    distances: tuple[FrechetTo, ...]
    weights: tuple[float, ...]

    @classmethod
    def to(cls, features: Sequence[Tensor], evidence: bool) -> "Unlikeness":
        """To the data that have these features, each (N, D); `evidence`: the last of them is."""
        weights = [1.0] * len(features)
        if evidence:
            weights[-1] = _EVIDENCE_WEIGHT
        return cls(tuple(FrechetTo.of(each) for each in features), tuple(weights))

    def __call__(self, features: Sequence[Tensor]) -> Tensor:
        """Of a set with these features, each (M, D): a scalar."""
        shares = [
            weight * distance(each) / distance.covariance.trace()
            for weight, distance, each in zip(self.weights, self.distances, features, strict=True)
        ]
        return torch.stack(shares).mean()


def gathered(parts: Iterable[Sequence[Tensor]]) -> list[Tensor]:
    """The features of several batches as those of one."""
    return [torch.cat(each) for each in zip(*parts, strict=True)]
