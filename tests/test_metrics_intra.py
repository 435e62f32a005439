"""Intra-class FID: what FID of all classes together does not see."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from underone.metrics import Gaussian, Moments, frechet_distance
from underone.metrics.intra import intra_class


def by_class(features: Tensor, labels: Tensor) -> dict[int, Gaussian]:
    return {
        label: Gaussian.of(Moments.of(features[labels == label]))
        for label in labels.unique().tolist()
    }


def mixture(parts: list[Gaussian]) -> Gaussian:
    """The moments of all classes together, with equal weights, from those of each class."""
    means = torch.stack([part.mean for part in parts])
    centred = means - means.mean(0)
    within = torch.stack([part.covariance for part in parts]).mean(0)
    return Gaussian(means.mean(0), within + centred.T @ centred / len(parts))


def test_swapped_labels_are_free_for_fid_and_cost_one_here() -> None:
    values = torch.tensor([[0.0]] * 4 + [[1.0]] * 4, dtype=torch.float64)
    labels = torch.tensor([0] * 4 + [1] * 4)
    references = by_class(values, labels)
    swapped = intra_class(values, 1 - labels, references)
    pooled = Gaussian.of(Moments.of(values))
    assert frechet_distance(pooled, pooled) == 0
    assert swapped.scores.tolist() == [1, 1]
    assert swapped.mean == swapped.weighted_mean == 1
    assert intra_class(values, labels, references).mean == 0


def test_the_means_weigh_classes_alike_or_by_count() -> None:
    # Class 3: two points at 0, class 5: six at 2; the references are points at 1 and 5.
    values = torch.tensor([[0.0]] * 2 + [[2.0]] * 6, dtype=torch.float64)
    labels = torch.tensor([3] * 2 + [5] * 6)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    references = {
        label: Gaussian(torch.tensor([at]).double(), zero) for label, at in ((3, 1.0), (5, 5.0))
    }
    shuffled = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    result = intra_class(values[shuffled], labels[shuffled], references)
    assert result.classes.tolist() == [3, 5]
    assert result.counts.tolist() == [2, 6]
    assert result.scores.tolist() == [1, 9]
    assert result.mean == 5
    assert result.weighted_mean == (2 * 1 + 6 * 9) / 8


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    classes=st.integers(1, 4),
    size=st.integers(1, 5),
    count=st.integers(2, 12),
    apart=st.floats(0, 5),
)
def test_classes_together_are_never_farther_than_the_mean_of_each(
    seed: int, classes: int, size: int, count: int, apart: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(count)

    def draw() -> Tensor:
        shape = (classes, size)
        centres, scales = (torch.randn(shape, generator=generator).double() for _ in range(2))
        noise = torch.randn(len(labels), size, generator=generator).double()
        return apart * centres[labels] + scales[labels] * noise

    generated, real = draw(), draw()
    references = by_class(real, labels)
    intra = intra_class(generated, labels, references).mean
    pooled = frechet_distance(
        mixture(list(by_class(generated, labels).values())), mixture(list(references.values()))
    )
    assert pooled <= intra * (1 + 1e-9) + 1e-6


def test_a_mixture_over_n_is_the_pooled_set() -> None:
    # What the property above is about: with covariances over N, `mixture` is the set as a whole.
    x = torch.randn(30, 3, generator=torch.Generator().manual_seed(0)).double()
    parts = [Gaussian(p.mean(0), p.T.cov(correction=0)) for p in x.split(10)]
    torch.testing.assert_close(mixture(parts).covariance, x.T.cov(correction=0))


def test_classes_that_one_side_lacks_are_named() -> None:
    values = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 1, 1, 4, 4])
    references = by_class(values, labels)
    with pytest.raises(ValueError, match=r"no samples of \[4\], no reference for \[\]"):
        intra_class(values[:4], labels[:4], references)
    del references[1]
    with pytest.raises(ValueError, match=r"no samples of \[\], no reference for \[1\]"):
        intra_class(values, labels, references)


def test_a_class_of_one_and_labels_of_another_length_are_refused() -> None:
    values, labels = torch.randn(4, 2), torch.tensor([0, 0, 1, 1])
    references = by_class(values, labels)
    with pytest.raises(ValueError, match="at least 2"):
        intra_class(values[:3], labels[:3], references)
    with pytest.raises(ValueError, match="labels must be"):
        intra_class(values, labels[:3], references)
