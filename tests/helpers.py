"""What the tests of diffusion share: small networks, noise that can be replayed, moments."""

import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from underone.checkpoint import DiffusionModel
from underone.diffusion import (
    DDIM,
    DDPM,
    GRIDS,
    SAMPLERS,
    Bound,
    Cosine,
    Denoiser,
    Estimate,
    Geometric,
    LinearBeta,
    Node,
    Prediction,
    Sampler,
    Schedule,
    Straight,
    integrate,
    node_at,
)
from underone.diffusion.node import expand
from underone.errors import UserError
from underone.networks.unet import UNet, UNetConfig
from underone.tuned import Purpose, TunedSampler, TuningRecord

PRESERVING: dict[str, Schedule] = {"linear-beta": LinearBeta(), "cosine": Cosine()}
SCHEDULES: dict[str, Schedule] = {
    **PRESERVING,
    "geometric": Geometric(steps=1000),
    "straight": Straight(),
}
FIRST_ORDER: dict[str, Sampler] = {
    "ddpm-large": DDPM("large"),
    "ddpm-small": DDPM("small"),
    "ddim-0": DDIM(0.0),
    "ddim-0.5": DDIM(0.5),
    "ddim-1": DDIM(1.0),
}

each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
each_preserving_schedule = pytest.mark.parametrize(
    "schedule", PRESERVING.values(), ids=PRESERVING.keys()
)
each_grid = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())
each_first_order_sampler = pytest.mark.parametrize(
    "sampler", FIRST_ORDER.values(), ids=FIRST_ORDER.keys()
)


class SmoothNetwork(nn.Module):
    """A random function (B, 1, H, W) -> (B, 1, H, W), bounded and smooth in x and in time.

    It knows three classes and the null label 3; without labels none is added.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.stem = nn.Conv2d(1, 8, 3, padding=1)
            self.time = nn.Linear(1, 8)
            self.label = nn.Embedding(4, 8)
            self.out = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x: Tensor, condition: Tensor, label: Tensor | None) -> Tensor:
        embedding = self.time(condition[:, None].to(x.dtype) / 1000)
        if label is not None:
            embedding = embedding + self.label(label)
        out: Tensor = self.out(torch.tanh(self.stem(x) + embedding[:, :, None, None]))
        return out


class AsNetwork(nn.Module):
    """A denoiser in the form of a network: outputs what `prediction` needs, from its x0."""

    def __init__(self, denoiser: Denoiser, prediction: Prediction) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.prediction = prediction

    def forward(self, x: Tensor, condition: Tensor, label: Tensor | None) -> Tensor:
        node = node_at(self.denoiser.schedule, condition.double() / 1000)
        x = x / self.prediction.input(torch.ones_like(x), node)
        x0 = self.denoiser(x, node, label)
        noise = (x - expand(node.alpha, x) * x0) / expand(node.sigma, x)
        return self.prediction.target(x0, noise, node)


def small_unet(seed: int = 0) -> UNet:
    """A U-Net for 1x8x8 images of 3 classes with no weight left at zero."""
    config = UNetConfig(
        image_size=8, channels=1, classes=3, width=8, multipliers=(1, 2), attention=(4,), heads=2
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = UNet(config)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.1)
    return network.eval()


def refusal(action: Callable[[], object]) -> str:
    """The one-line message of the `UserError` that `action` raises."""
    with pytest.raises(UserError) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    return text


def strict_json(text: str) -> Any:
    """What a text says to programs that know JSON alone: Infinity and NaN are errors."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def float64(values: object) -> Tensor:
    """A float64 tensor."""
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal float64 numbers, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Callable[[], Tensor]:
    """An endless source of noise, the same for the same seed."""
    counter = itertools.count(1_000_000 * (seed + 1))
    return lambda: normal(*shape, seed=next(counter)).to(dtype)


def run(
    denoiser: Denoiser,
    sampler: Sampler,
    path: Sequence[Node],
    x: Tensor,
    noise: Callable[[], Tensor],
    label: Tensor | None = None,
) -> list[Estimate]:
    """Every estimate along the path, the result last."""
    with torch.no_grad():
        return list(integrate(Bound(denoiser, label), sampler, path, x, noise))


def moments(
    denoiser: Denoiser, sampler: Sampler, path: Sequence[Node], start: tuple[float, float]
) -> list[tuple[float, float]]:
    """Mean and variance of x at every node, from those at the first; exact for an affine denoiser.

    Then x is affine in all the noise drawn, so one batch suffices: row 0 has no noise and is the
    mean, row r > 0 has a 1 in the r-th draw alone, and the squared responses sum to the variance.
    """
    units = iter(torch.eye(1 + len(path), dtype=torch.float64)[1:, :, None])
    mean, variance = start
    x = mean + variance**0.5 * next(units)
    states = [estimate.x for estimate in run(denoiser, sampler, path, x, lambda: next(units))]
    return [(x[0].item(), (x - x[0]).square().sum().item()) for x in states]


def tuned_by_hand(model: DiffusionModel, purpose: Purpose) -> TunedSampler:
    """A tuned sampler as it is kept, which nothing was learned for."""
    steps = purpose.steps
    return TunedSampler(
        model_sha256=model.sha256,
        purpose=purpose,
        grid=tuple(1000.0 - 10 * step for step in range(steps)),
        etas=(0.1,) * (steps - 1),
        weights=((1.0, 0.0),) * steps,
        shifts=(0.0,) * steps,
        learning=TuningRecord(
            seed=0,
            batch_size=1,
            iterations=1,
            minutes=1,
            distance_before=1,
            distance_after=1,
        ),
    )
