"""What tuning minimises: the distance to the data in the features of the model."""

import pytest
import torch
from torch import Tensor

from helpers import normal
from underone.errors import UserError
from underone.metrics.frechet import Gaussian, frechet_distance
from underone.tuning.features import (
    ClassMeanDistance,
    FeatureDistance,
    FeatureStatistics,
    FrechetDistance,
    merged,
)


def test_the_distance_is_that_of_fid_and_has_its_gradient() -> None:
    mixing = normal(6, 6, seed=5)
    one, other = normal(400, 6, seed=1) @ mixing, normal(300, 6, seed=2) + 0.3
    distance = FrechetDistance.to(one)
    mine = distance(other).item()
    gaussians = [Gaussian(x.mean(0), torch.cov(x.T)) for x in (one, other)]
    assert mine == pytest.approx(frechet_distance(*gaussians), rel=1e-9)
    assert distance(one).item() == pytest.approx(0, abs=1e-6)
    leaf = other[:50].clone().requires_grad_()
    assert torch.autograd.gradcheck(distance, leaf, atol=1e-6)


def statistics(pooled: list[Tensor], maps: list[Tensor], labels: Tensor) -> FeatureStatistics:
    classes = torch.nn.functional.one_hot(labels, 3).double()
    sums = tuple(classes.T @ each for each in maps)
    squares = tuple(classes.T @ each.square().sum(1) for each in maps)
    return FeatureStatistics(tuple(pooled), sums, squares, classes.sum(0))


def test_no_feature_counts_for_more_because_its_numbers_are_larger() -> None:
    labels, others = torch.arange(500) % 3, torch.arange(300) % 3
    data = [normal(500, 4, seed=1), normal(500, 3, seed=2)]
    other = [0.5 + normal(300, 4, seed=3), normal(300, 3, seed=4)]

    def distance(scale: float) -> Tensor:
        one, two = (
            statistics([each[0], scale * each[1]], [scale * each[1]], classes)
            for each, classes in ((data, labels), (other, others))
        )
        return FeatureDistance.to(one)(two)

    torch.testing.assert_close(distance(1), distance(100))


def test_data_are_like_themselves_and_parts_are_like_the_whole() -> None:
    labels = torch.arange(600) % 3
    pooled, maps = [normal(600, 4, seed=1)], [normal(600, 20, seed=2) + 2.0 * labels[:, None]]
    data = statistics(pooled, maps, labels)
    distance = FeatureDistance.to(data)
    # No gap to the very same images: what chance would make of as many others is taken off.
    assert distance(data).item() == pytest.approx(-5.0 / 199, abs=1e-6)
    halves = [
        statistics([each[part] for each in pooled], [each[part] for each in maps], labels[part])
        for part in (slice(0, 100), slice(100, 600))
    ]
    whole = merged(halves)
    torch.testing.assert_close(distance(whole), distance(data))
    assert not any(each.requires_grad for each in whole.detached().sums)


def test_swapped_classes_are_seen_and_chance_is_not() -> None:
    labels = torch.arange(3000) % 3

    def images(seed: int) -> Tensor:
        return normal(3000, 20, seed=seed) + labels[:, None]

    pooled = [normal(3000, 2, seed=9)]
    distance = ClassMeanDistance(*_class_means(images(1), labels), torch.ones(3, dtype=torch.bool))
    chance = [distance(*_sums(images(seed), labels)).item() for seed in range(2, 12)]
    # 1 / 1000 of variance is chance, of the data's means and of the samples'; one is taken off.
    assert sum(chance) / len(chance) == pytest.approx(1e-3, abs=4e-4)
    assert distance(*_sums(images(2), labels.flip(0))).item() > 0.05
    swapped = statistics(pooled, [images(2)], labels.flip(0))
    whole = FeatureDistance.to(statistics(pooled, [images(1)], labels))
    assert whole(swapped) > whole(statistics(pooled, [images(2)], labels)) + 0.2


def test_images_that_vary_less_or_more_than_the_data_are_not_preferred_for_it() -> None:
    labels = torch.arange(3000) % 3
    data = normal(3000, 20, seed=1) + labels[:, None]
    distance = ClassMeanDistance(*_class_means(data, labels), torch.ones(3, dtype=torch.bool))
    few = torch.arange(60) % 3
    for scale in (0.5, 2.0):
        chance = [
            distance(*_sums(scale * normal(60, 20, seed=seed) + few[:, None], few)).item()
            for seed in range(2, 202)
        ]
        assert sum(chance) / len(chance) == pytest.approx(1e-3, abs=4e-3 * scale)


def _sums(maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    classes = torch.nn.functional.one_hot(labels, 3).double()
    return classes.T @ maps, classes.T @ maps.square().sum(1), classes.sum(0)


def _class_means(maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    sums, _, counts = _sums(maps, labels)
    means = sums / counts[:, None]
    return means, (maps - means[labels]).square().sum() / len(maps)


def test_a_class_without_images_does_not_count() -> None:
    maps, labels = normal(300, 5), torch.arange(300) % 3
    means = _class_means(maps, labels)
    distance = ClassMeanDistance(*means, torch.ones(3, dtype=torch.bool))
    two = labels < 2
    without = distance(*_sums(maps[two], labels[two]))
    assert without.item() == pytest.approx(-1 / 99, rel=0.01)
    # Nor does one that the data have no image of, whatever is made of it.
    unknown = ClassMeanDistance(*means, torch.tensor([True, True, False]))
    strange = torch.where(two[:, None], maps, maps + 100)
    assert unknown(*_sums(strange, labels)).item() == pytest.approx(-1 / 99, rel=0.01)


def test_images_that_do_not_vary_within_a_class_are_refused() -> None:
    labels = torch.arange(30) % 3
    alike = normal(3, 20)[labels]
    with pytest.raises(UserError, match="several different images a class"):
        FeatureDistance.to(statistics([normal(30, 2)], [alike], labels))
