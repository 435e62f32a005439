"""What the error at each noise level counts in training."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from helpers import float64
from underone.diffusion import (
    Cosine,
    Data,
    FlowVelocity,
    Geometric,
    LinearBeta,
    Noise,
    Preconditioned,
    Prediction,
    Schedule,
    Score,
    Straight,
    Velocity,
    node_at,
)
from underone.errors import UserError
from underone.training.objective import Denoising
from underone.training.weighting import SIMPLE, MinSNR

TIMES = (torch.arange(1000, dtype=torch.float64) + 1) / 1000
FRAMEWORKS: list[tuple[Schedule, Prediction]] = [
    *((schedule, kind) for schedule in (LinearBeta(), Cosine()) for kind in (Noise(), Velocity())),
    (LinearBeta(), Data()),
    (LinearBeta(), Preconditioned(0.7)),
    (Geometric(), Score()),
    (Straight(), FlowVelocity()),
]


def snr(schedule: Schedule) -> Tensor:
    alpha, sigma = schedule(TIMES)
    return (alpha / sigma).square()


def weights(schedule: Schedule, prediction: Prediction, limit: float = 5.0) -> Tensor:
    return MinSNR(limit)(prediction, node_at(schedule, TIMES))


@pytest.mark.parametrize("schedule", [LinearBeta(), Cosine()])
def test_min_snr_is_as_published_for_noise_data_and_velocity(schedule: Schedule) -> None:
    ratio = snr(schedule)
    least = ratio.clamp(max=5)
    torch.testing.assert_close(weights(schedule, Noise()), least / ratio)
    torch.testing.assert_close(weights(schedule, Data()), least)
    torch.testing.assert_close(weights(schedule, Velocity()), least / (ratio + 1))


@pytest.mark.parametrize(("schedule", "prediction"), FRAMEWORKS)
def test_min_snr_counts_the_same_error_of_x0_alike_in_every_prediction(
    schedule: Schedule, prediction: Prediction
) -> None:
    node = node_at(schedule, TIMES)
    output = torch.full((1000, 1), 0.3, dtype=torch.float64)
    x = torch.full_like(output, 0.8)
    moved = prediction.to_x0(output + 1e-3, x, node) - prediction.to_x0(output, x, node)
    wanted = snr(schedule).clamp(max=5) * (moved[:, 0] / 1e-3).square()
    torch.testing.assert_close(weights(schedule, prediction), wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("schedule", "prediction"), FRAMEWORKS)
def test_weights_are_finite_and_not_negative_at_every_step(
    schedule: Schedule, prediction: Prediction
) -> None:
    for weighting in (SIMPLE, MinSNR(), MinSNR(0.1), MinSNR(1e6)):
        found = weighting(prediction, node_at(schedule, TIMES))
        assert found.shape == (1000,)
        assert found.isfinite().all()
        assert (found >= 0).all()


@dataclass
class Levels:
    """Every image at times of its own, kept for the test."""

    def __call__(self, schedule: Schedule, uniform: Tensor) -> Tensor:
        self.times = uniform.clamp(min=1 / schedule.steps)
        return self.times


class Zero(nn.Module):
    def forward(self, x: Tensor, condition: Tensor, label: Tensor | None) -> Tensor:
        return torch.zeros_like(x)


@pytest.mark.parametrize("weighting", [SIMPLE, MinSNR(), MinSNR(0.5)])
def test_the_loss_is_the_weighted_mean_of_every_images_error(weighting: MinSNR) -> None:
    levels = Levels()
    images = torch.rand(16, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    objective = Denoising(LinearBeta(), Data(), 0.0, None, levels, weighting)
    loss = objective(Zero(), images, torch.zeros(16).long(), torch.Generator().manual_seed(2))
    counts = weighting(Data(), node_at(LinearBeta(), levels.times))
    by_hand = sum(
        count.item() * image.square().mean().item()
        for count, image in zip(counts, images, strict=True)
    )
    assert loss.item() == pytest.approx(by_hand / 16, rel=1e-5)


def test_below_the_limit_min_snr_of_noise_is_simple() -> None:
    high = weights(LinearBeta(), Noise(), limit=1e12)
    torch.testing.assert_close(high, torch.ones(1000, dtype=torch.float64))
    noisy = snr(LinearBeta()) < 5
    assert noisy.any()
    assert torch.allclose(weights(LinearBeta(), Noise())[noisy], float64([1.0]))


@pytest.mark.parametrize("limit", [0.0, -1.0, math.inf, math.nan])
def test_a_limit_that_is_none_is_refused(limit: float) -> None:
    with pytest.raises(UserError, match="finite and above 0"):
        MinSNR(limit)
