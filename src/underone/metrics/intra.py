"""Intra-class FID: each class against real images of it, so that wrong classes are penalised."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from underone.metrics.frechet import Gaussian, frechet_distance


@dataclass(frozen=True, eq=False)
class IntraClass:
    """The FID of each class, `scores` (C,), the classes' labels (C,) and their `counts` n_c (C,).

    FID has a bias that depends on n_c: figures compare only where every n_c is the same.
    """

    classes: Tensor
    scores: Tensor
    counts: Tensor

    @property
    def mean(self) -> float:
        """The unweighted mean over classes."""
        return float(self.scores.mean())

    @property
    def weighted_mean(self) -> float:
        """sum_c n_c FID_c / sum_c n_c: the mean weighted by how often each class was generated."""
        return float((self.scores * self.counts).sum() / self.counts.sum())


def intra_class(features: Tensor, labels: Tensor, references: Mapping[int, Gaussian]) -> IntraClass:
    """FID_c of the generated features (N, D) with labels (N,) c against `references[c]`.

    With the same class weights on both sides, the mean is never below the FID of all classes
    together, which does not notice swapped labels: the squared distance is jointly convex (Villani
    2009, theorem 4.8). The generated classes must be those of the references, each with n_c >= 2,
    else `ValueError`; with n_c <= D a score is computed, but it is of a singular covariance.
    """
    if labels.shape != (len(features),):
        raise ValueError(f"labels must be ({len(features)},), got {tuple(labels.shape)}")
    classes, counts = labels.unique(return_counts=True)
    _check_same_classes(set(classes.tolist()), set(references))
    scores = [
        frechet_distance(Gaussian.of_features(features[labels == label]), references[label])
        for label in classes.tolist()
    ]
    return IntraClass(classes, torch.tensor(scores, dtype=torch.float64), counts)


def _check_same_classes(generated: set[int], known: set[int]) -> None:
    """A `ValueError` naming the classes that one side lacks."""
    if generated != known:
        raise ValueError(
            f"both sides must have the same classes: no samples of {sorted(known - generated)}, "
            f"no reference for {sorted(generated - known)}"
        )
