"""Likeness to the data, which a student of few evaluations may minimise."""

import itertools

import pytest
import torch
from torch import Tensor

from helpers import normal
from underone.checkpoint import DiffusionModel
from underone.errors import UserError
from underone.training.energy_distance import EnergyDistance, relative_energy_distance
from underone.tuning.features import NetworkFeatures


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def directly(made: Tensor, real: Tensor, alike: Tensor) -> float:
    """The relative distance over the pairs with equal `alike`, one pair at a time."""
    across, one, other = [], [], []
    for i, j in itertools.product(range(len(made)), repeat=2):
        if alike[i, j] and i != j:
            across.append((made[i] - real[j]).norm().item())
            one.append((made[i] - made[j]).norm().item())
            other.append((real[i] - real[j]).norm().item())
    means = [sum(each) / len(each) for each in (across, one, other)]
    return (2 * means[0] - means[1] - means[2]) / means[2]


def test_it_is_the_energy_distance_over_all_pairs_and_within_classes() -> None:
    made, real, labels = normal(12, 3).float(), 2 + normal(12, 3).float(), torch.arange(12) % 4
    alike = labels[:, None] == labels
    expected = (directly(made, real, torch.ones_like(alike)) + directly(made, real, alike)) / 2
    assert relative_energy_distance(made, real, labels).item() == pytest.approx(expected, rel=1e-4)
    # Of single images of their classes there are no pairs.
    alone = directly(made, real, torch.ones_like(alike))
    assert relative_energy_distance(made, real, torch.arange(12)).item() == pytest.approx(
        alone, rel=1e-4
    )


def test_what_is_alike_is_not_told_apart_in_the_mean() -> None:
    draw = generator()
    labels = torch.arange(32) % 2
    found = torch.stack(
        [
            relative_energy_distance(
                torch.randn(32, 5, generator=draw), torch.randn(32, 5, generator=draw), labels
            )
            for _ in range(400)
        ]
    )
    error = found.std() / 20
    assert found.mean().abs() < 3 * error < 0.02


def test_swapped_classes_are_seen() -> None:
    """A difference that the distance over all pairs does not see."""
    labels = torch.arange(200) % 2
    real = normal(200, 4).float() + 4 * labels[:, None]
    alike, swapped = (
        normal(200, 4).float() + 4 * labels[:, None],
        normal(200, 4) + 4 * (1 - labels)[:, None],
    )
    assert relative_energy_distance(alike, real, labels) < 0.05
    assert relative_energy_distance(swapped.float(), real, labels) > 0.5


def test_its_gradient_leads_to_the_data_and_is_finite_even_where_images_coincide() -> None:
    real, labels = 3 + 0.5 * normal(64, 6).float(), torch.arange(64) % 4
    made = torch.zeros(64, 6, requires_grad=True)
    relative_energy_distance(made, real, labels).backward()
    assert made.grad is not None
    assert made.grad.isfinite().all()
    optimizer = torch.optim.Adam([made], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (relative_energy_distance(made, real, labels) + 1e-6 * made.square().sum()).backward()
        optimizer.step()
    assert relative_energy_distance(made, real, labels) < 0.1


def test_real_images_are_nearer_than_noise_in_the_eyes_of_any_network(
    small_model: DiffusionModel,
) -> None:
    distance = EnergyDistance(NetworkFeatures(small_model, None))
    stripes = torch.linspace(-1, 1, 28).expand(24, 1, 28, 28)
    labels = torch.arange(24) % 10
    one, other = (stripes * (0.5 + 0.1 * normal(24, 1, 1, 1, seed=s).float()) for s in (0, 1))
    noise = normal(24, 1, 28, 28).float().clamp(-1, 1).requires_grad_()
    near = distance(one, other, labels, generator())
    far = distance(noise, other, labels, generator())
    assert near < 0.5 * far
    far.backward()
    assert noise.grad is not None
    assert noise.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in small_model.network.parameters())


def test_copies_of_one_image_are_no_measure_of_distance() -> None:
    labels = torch.arange(8) % 4
    made, real = normal(8, 3), normal(4, 3, seed=1)[labels]
    # Within classes all are copies: what is left are the pairs across.
    alone = relative_energy_distance(made, real, torch.arange(8))
    torch.testing.assert_close(relative_energy_distance(made, real, labels), alone)
    with pytest.raises(UserError, match="all images of a batch are alike"):
        relative_energy_distance(made, real[:1].expand(8, 3), labels)
