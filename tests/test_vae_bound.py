"""The conditional VAE's bound, and the network that is trained by it."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from helpers import float64, normal, refusal
from underone.networks import VAE, build_network
from underone.networks.vae import gaussian_surprisal, kl_from_prior
from underone.training.objective import NegativeELBO
from underone.training.recipe import load_recipe
from vaes import config, network

# The bound.


def test_the_kl_divergence_is_that_of_gaussians() -> None:
    mean, log_variance = normal(4, 6), normal(4, 6, seed=1)
    posterior = Independent(Normal(mean, (log_variance / 2).exp()), 1)
    prior = Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 1)
    torch.testing.assert_close(kl_from_prior(mean, log_variance), kl_divergence(posterior, prior))
    assert kl_from_prior(torch.zeros(1, 6), torch.zeros(1, 6)).item() == 0


def test_the_surprisal_is_minus_the_log_density_of_all_pixels() -> None:
    x, mean, log_deviation = normal(3, 2, 4, 4), normal(3, 2, 4, 4, seed=1), float64(-1.3)
    expected = -Normal(mean, log_deviation.exp()).log_prob(x).sum(dim=(1, 2, 3))
    torch.testing.assert_close(gaussian_surprisal(x, mean, log_deviation), expected)


class LinearGaussian(VAE):
    """mu(z) = W z + b with orthogonal columns of W, so that the exact posterior is diagonal.

    Of p(x) = N(b, W W' + sigma^2 I) everything is known. The encoder is the exact posterior's mean
    shifted by `shift`, and its variance times e^`widen`.
    """

    def __init__(self, shift: float, widen: float) -> None:
        super().__init__(config(image_size=4, attention=(), latent=3))
        basis, _ = torch.linalg.qr(normal(16, 3))
        self.scales = float64([0.5, 1.0, 2.0])
        self.matrix, self.offset = basis * self.scales, normal(16, seed=1)
        self.log_deviation = nn.Parameter(float64(0.7).log())
        self.shift, self.widen = shift, widen

    def encode(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        exact = self.posterior(x)
        return exact.mean + self.shift, exact.variance.log() + self.widen

    def decode(self, z: Tensor, label: Tensor) -> Tensor:
        return (z @ self.matrix.T + self.offset).reshape(-1, 1, 4, 4)

    def posterior(self, x: Tensor) -> Normal:
        variance = 1 / (1 + self.scales.square() / 0.7**2)
        mean = (x.flatten(1) - self.offset) @ self.matrix / 0.7**2 * variance
        return Normal(mean, variance.sqrt().expand_as(mean))

    def surprisal(self, x: Tensor) -> Tensor:
        covariance = self.matrix @ self.matrix.T + 0.7**2 * torch.eye(16, dtype=torch.float64)
        return -MultivariateNormal(self.offset, covariance).log_prob(x.flatten(1))


@pytest.mark.parametrize(("shift", "widen"), [(0.0, 0.0), (0.4, 0.0), (0.0, -0.6), (-0.3, 0.5)])
@torch.no_grad()
def test_the_bound_is_loose_by_the_divergence_from_the_exact_posterior(
    shift: float, widen: float
) -> None:
    model, x = LinearGaussian(shift, widen), normal(5, 1, 4, 4, seed=2)
    labels = torch.zeros(len(x), dtype=torch.int64)
    # The bound is quadratic in the noise: over these six points its mean is the exact expectation.
    points = 3**0.5 * torch.cat([torch.eye(3), -torch.eye(3)]).double()
    bounds = [model(x, labels, point.expand(len(x), 3)) for point in points]
    bound = torch.stack([each.reconstruction + each.kl for each in bounds]).mean(0)
    mean, log_variance = model.encode(x, labels)
    gap = kl_divergence(Normal(mean, (log_variance / 2).exp()), model.posterior(x)).sum(1)
    assert (gap.min() > 0.1) == bool(shift or widen)
    torch.testing.assert_close(bound - model.surprisal(x), gap)


@torch.no_grad()
def test_it_minimises_the_bound_in_bits_per_dimension() -> None:
    model, images = LinearGaussian(0.1, 0.2), normal(6, 1, 4, 4, seed=3)
    labels = torch.zeros(6, dtype=torch.int64)
    noise = torch.randn(6, 3, generator=torch.Generator().manual_seed(5))
    bound = model(images, labels, noise)
    for beta in (0.0, 1.0, 4.0):
        generator = torch.Generator().manual_seed(5)
        loss = NegativeELBO(3, beta)(model, images, labels, generator)
        nats = (bound.reconstruction + beta * bound.kl).mean()
        # The volume of a grey level's cell turns a density into a probability.
        assert loss.item() == pytest.approx(
            nats.item() / (16 * math.log(2)) + math.log2(255 / 2), rel=1e-6
        )


def test_sigma_is_best_at_the_root_of_the_mean_squared_error() -> None:
    x, mean = normal(8, 1, 4, 4), normal(8, 1, 4, 4, seed=1)
    best = (x - mean).square().mean().sqrt().log()
    for offset, sign in ((-0.1, -1), (0.0, 0), (0.1, 1)):
        log_deviation = (best + offset).requires_grad_()
        gaussian_surprisal(x, mean, log_deviation).sum().backward()
        assert log_deviation.grad is not None
        slope = log_deviation.grad.item()
        assert (abs(slope) < 1e-9) if sign == 0 else (slope * sign > 1)


# The network.


@pytest.mark.parametrize(
    "changes",
    [
        {"image_size": 28, "channels": 1, "attention": (7,), "patch": 2},
        {"image_size": 32, "channels": 3, "attention": (8,), "multipliers": (1, 2, 2)},
        {"image_size": 7, "attention": ()},
        {"image_size": 28, "attention": (14,), "revision": 1},
    ],
)
@torch.no_grad()
def test_images_come_out_as_large_as_they_went_in(changes: dict[str, Any]) -> None:
    model, size = network(**changes), changes["image_size"]
    x = torch.randn(3, changes.get("channels", 1), size, size)
    labels = torch.tensor([0, 1, 2])
    mean, log_variance = model.encode(x, labels)
    assert mean.shape == log_variance.shape == (3, 5)
    assert model.decode(mean, labels).shape == x.shape
    bound = model(x, labels, torch.randn(3, 5))
    assert bound.reconstruction.shape == bound.kl.shape == (3,)


@torch.no_grad()
def test_image_class_and_latent_all_count() -> None:
    model, x, z = network(), torch.randn(4, 1, 8, 8), torch.randn(4, 5)
    ones, twos = torch.ones(4, dtype=torch.int64), torch.full((4,), 2)
    for one, other in zip(model.encode(x, ones), model.encode(x, twos), strict=True):
        assert (one - other).abs().max() > 1e-3
    assert (model.encode(x, ones)[0] - model.encode(x.flip(0), ones)[0]).abs().min() > 1e-6
    assert (model.decode(z, ones) - model.decode(z, twos)).abs().max() > 1e-3
    assert (model.decode(z, ones) - model.decode(z + 1, ones)).abs().max() > 1e-3
    # Each row by itself, whatever stands beside it.
    torch.testing.assert_close(model.decode(z[:1], ones[:1]), model.decode(z, ones)[:1])


@torch.no_grad()
def test_at_first_it_decodes_nothing_and_encodes_nothing() -> None:
    model, x = VAE(config(deviation=0.5)), torch.randn(4, 1, 8, 8)
    bound = model(x, torch.arange(4) % 3, torch.randn(4, 5))
    assert bound.kl.tolist() == [0, 0, 0, 0]
    expected = -Normal(0.0, 0.5).log_prob(x).sum(dim=(1, 2, 3))
    torch.testing.assert_close(bound.reconstruction, expected)


def test_every_weight_is_trained() -> None:
    model = network()
    noise = torch.randn(6, 5)
    bound = model(torch.randn(6, 1, 8, 8), torch.arange(6) % 3, noise)
    (bound.reconstruction + bound.kl).mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_the_shipped_recipe_is_about_as_large_as_the_diffusion_model() -> None:
    sizes = [
        sum(
            parameter.numel() for parameter in build_network(load_recipe(name).network).parameters()
        )
        for name in ("fashion-mnist-cvae", "fashion-mnist")
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"classes": 0}, "classes and latent"),
        ({"latent": 0}, "classes and latent"),
        ({"deviation": 0.0}, "deviation"),
        ({"deviation": math.inf}, "deviation"),
        ({"attention": (5,)}, "never reached"),
    ],
)
def test_an_impossible_shape_is_told(changes: dict[str, Any], told: str) -> None:
    assert told in refusal(lambda: config(**changes))
