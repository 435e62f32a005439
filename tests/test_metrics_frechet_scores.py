"""FID and its kin as metrics: what labels change."""

import torch

from helpers import normal
from underone.metrics.extractor import Features
from underone.metrics.frechet import Gaussian
from underone.metrics.frechet_scores import _frechet
from underone.metrics.moments import Moments
from underone.metrics.scored import ScoredImages


def test_classes_are_fixed_whatever_their_numbers_are() -> None:
    """Equally many of two classes are no random labels, though eight others have no image."""
    values = normal(60, 3) + torch.arange(60)[:, None] % 2
    gaussian = Gaussian.of(Moments.of(normal(500, 3, seed=1)))
    told = [
        _frechet(ScoredImages.of(Features(values, None, labels)), gaussian).influences
        for labels in (torch.tensor([0, 1]).repeat(30), torch.tensor([3, 9]).repeat(30))
    ]
    assert told[0] == told[1] is not None
    unlabelled = _frechet(ScoredImages.of(Features(values, None, None)), gaussian).influences
    assert told[0] != unlabelled
