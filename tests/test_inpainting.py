"""Known pixels come back bit for bit, and what fills the hole depends on them."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from helpers import SmoothNetwork, draws, each_sampler, normal
from underone.data import to_model_range, to_uint8
from underone.diffusion import (
    DDIM,
    DDPM,
    RK45,
    Bound,
    Inpainted,
    LinearBeta,
    LogSNR,
    NetworkDenoiser,
    Node,
    PredictorCorrector,
    Sampler,
    Schedule,
    Trailing,
    Velocity,
    integrate,
    nodes,
)

SCHEDULE = LinearBeta()


def images(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 1, 6, 6), generator=generator, dtype=torch.uint8)


@each_sampler
def test_known_pixels_come_back_bit_for_bit(sampler: Sampler) -> None:
    model = Bound(NetworkDenoiser(SmoothNetwork(), SCHEDULE, Velocity()), torch.tensor([0, 1, 2]))
    hole = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(4)) < 0.4
    known = images(3)
    filled = Inpainted(model, to_model_range(known), hole)
    if isinstance(sampler, RK45):
        sampler = RK45(relative=0.01, absolute=0.01)
    noise = draws(3, 1, 6, 6, dtype=torch.float32)
    path = nodes(LogSNR(), SCHEDULE, 4)
    with torch.no_grad():
        *_, last = integrate(filled, sampler, path, path[0].sigma * noise(), noise)
    result = to_uint8(last.x)
    assert torch.equal(result[~hole], known[~hole])
    assert (result[hole] != known[hole]).float().mean() > 0.5


def test_rows_keep_their_images_and_holes() -> None:
    model = Bound(NetworkDenoiser(SmoothNetwork(), SCHEDULE, Velocity()), torch.tensor([0, 1, 2]))
    known, hole = normal(3, 1, 6, 6).float(), normal(3, 1, 6, 6, seed=1) > 0
    filled, x = Inpainted(model, known, hole), normal(3, 1, 6, 6, seed=2).float()
    node = nodes(Trailing(), SCHEDULE, 2)[1]
    chosen = torch.tensor([2, 0])
    part = filled.rows(chosen)(x[chosen], node).x0
    assert torch.allclose(part, filled(x, node).x0[chosen], atol=1e-6)
    assert filled.node(node.log_snr).t == model.node(node.log_snr).t


@dataclass(frozen=True)
class Pair:
    """x0 ~ N(0, C) of two elements with variance 1/4 and correlation 0.8."""

    schedule: Schedule

    def __call__(self, x: Tensor, node: Node, label: Tensor | None) -> Tensor:
        covariance = 0.25 * torch.tensor([[1, 0.8], [0.8, 1]], dtype=torch.float64)
        noisy = node.alpha**2 * covariance + node.sigma**2 * torch.eye(2, dtype=torch.float64)
        return x @ torch.linalg.solve(noisy, node.alpha * covariance)


def mean_filling(sampler: Sampler, steps: int = 50) -> float:
    """The mean of the second element where the first is 0.6; by the exact law 0.8 * 0.6."""
    known = torch.tensor([[0.6, 0.0]], dtype=torch.float64).expand(2000, 2)
    hole = torch.tensor([[False, True]]).expand(2000, 2)
    model = Inpainted(Bound(Pair(SCHEDULE), None), known, hole)
    noise, path = draws(2000, 2), nodes(Trailing(), SCHEDULE, steps)
    *_, last = integrate(model, sampler, path, path[0].sigma * noise(), noise)
    assert (last.x[:, 0] == 0.6).all()
    return last.x[:, 1].mean().item()


def test_the_filling_depends_on_what_is_known_and_the_more_the_noise_is_renewed() -> None:
    samplers = [DDIM(), DDPM("small"), *(PredictorCorrector(corrections=n) for n in (4, 64))]
    means = [mean_filling(sampler) for sampler in samplers]
    standard_error = 0.4 / 2000**0.5
    assert means[0] > 10 * standard_error
    for before, after in zip(means, [*means[1:], 0.48], strict=True):
        assert after - before > 3 * standard_error
    # As docs/editing.md has them.
    assert means == pytest.approx([0.22, 0.29, 0.33, 0.44], abs=0.02)
