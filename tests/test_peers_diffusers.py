"""The same network stepped by diffusers' schedulers gives the same images."""

from collections.abc import Callable
from typing import Any

import diffusers.schedulers.scheduling_ddpm as peer_ddpm
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn

from helpers import AsNetwork, SmoothNetwork, draws, normal
from underone.data import to_uint8
from underone.diffusion import (
    DDIM,
    DDPM,
    GRIDS,
    Bound,
    Clipped,
    Denoiser,
    LinearBeta,
    NetworkDenoiser,
    Noise,
    Prediction,
    Sampler,
    Velocity,
    integrate,
    nodes,
)
from underone.zoo import load_model

SCHEDULE = LinearBeta()
# Our name -> theirs.
SPACING = {"uniform": "leading", "trailing": "trailing"}
PREDICTIONS: dict[str, tuple[Prediction, str]] = {
    "noise": (Noise(), "epsilon"),
    "velocity": (Velocity(), "v_prediction"),
}
COMMON = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
Network = Callable[[Tensor, Tensor], Tensor]

each_case = pytest.mark.parametrize(
    ("grid", "steps", "prediction", "clip"),
    [
        ("uniform", 1000, "noise", True),
        ("uniform", 1000, "velocity", False),
        ("uniform", 50, "noise", False),
        ("trailing", 50, "velocity", False),
        ("trailing", 50, "noise", True),
        ("uniform", 10, "velocity", True),
        ("trailing", 10, "noise", False),
    ],
)


def smooth_network(prediction: Prediction) -> nn.Module:
    """One random function in every dress: bounded x0, whatever the network is said to predict."""
    return AsNetwork(NetworkDenoiser(SmoothNetwork(), SCHEDULE, Velocity()), prediction)


def ours(
    denoiser: Denoiser, sampler: Sampler, grid: str, steps: int, x: Tensor, label: Tensor | None
) -> list[Tensor]:
    path = nodes(GRIDS[grid], SCHEDULE, steps)
    noise = draws(*x.shape, seed=1, dtype=torch.float32)
    with torch.no_grad():
        states = list(integrate(Bound(denoiser, label), sampler, path, x, noise))
    return [state.x for state in states]


def theirs(scheduler: Any, network: Network, steps: int, x: Tensor, **options: Any) -> list[Tensor]:
    """Every state; their index of the step k is k - 1."""
    # Their tables are float32, in which 1 - alphas_cumprod loses digits near the clean end: that
    # alone moves 1000 steps by up to 1.2e-4. In float64 what is compared is the stepping.
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    scheduler.betas, scheduler.alphas = betas, 1 - betas
    scheduler.alphas_cumprod = scheduler.alphas.cumprod(0)
    scheduler.one = scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    scheduler.set_timesteps(steps)
    states = [x]
    with torch.no_grad():
        for index in scheduler.timesteps:
            output = network(states[-1], (index + 1).expand(len(x)).float())
            extra = {name: value() for name, value in options.items()}
            states.append(scheduler.step(output, index, states[-1], **extra).prev_sample)
    return states


@pytest.fixture
def peer_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets DDPMScheduler draw the noise that we draw."""
    source = draws(4, 1, 8, 8, seed=1, dtype=torch.float32)
    monkeypatch.setattr(peer_ddpm, "randn_tensor", lambda *_, **__: source())


def denoiser_of(prediction: Prediction, clip: bool) -> tuple[nn.Module, Denoiser]:
    network = smooth_network(prediction)
    denoiser: Denoiser = NetworkDenoiser(network, SCHEDULE, prediction)
    return network, Clipped(denoiser) if clip else denoiser


def assert_equal(mine: list[Tensor], peers: list[Tensor]) -> None:
    assert len(mine) == len(peers)
    for a, b in zip(mine, peers, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


@pytest.mark.usefixtures("peer_noise")
@pytest.mark.parametrize("variance", ["small", "large"])
@each_case
def test_ddpm(variance: str, grid: str, steps: int, prediction: str, clip: bool) -> None:
    meaning, name = PREDICTIONS[prediction]
    network, denoiser = denoiser_of(meaning, clip)
    scheduler = DDPMScheduler(
        **COMMON,
        prediction_type=name,
        variance_type=f"fixed_{variance}",
        clip_sample=clip,
        timestep_spacing=SPACING[grid],
    )
    x = normal(4, 1, 8, 8).float()
    mine = ours(denoiser, DDPM("small" if variance == "small" else "large"), grid, steps, x, None)
    peers = theirs(scheduler, lambda x, k: network(x, k, None), steps, x)
    if variance == "large" and grid == "trailing":
        # Their last step goes to the clean end but, starting above their index 0, still adds
        # noise of the full beta: residual noise in the result. Ours ends at x0.
        residual = (peers.pop() - mine.pop()).std()
        assert residual > 0.9 * (1 - SCHEDULE.betas()[: 1000 // steps]).prod().neg().add(1).sqrt()
    assert_equal(mine, peers)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@each_case
def test_ddim(eta: float, grid: str, steps: int, prediction: str, clip: bool) -> None:
    meaning, name = PREDICTIONS[prediction]
    network, denoiser = denoiser_of(meaning, clip)
    scheduler = DDIMScheduler(
        **COMMON, prediction_type=name, clip_sample=clip, timestep_spacing=SPACING[grid]
    )
    x = normal(4, 1, 8, 8).float()
    mine = ours(denoiser, DDIM(eta), grid, steps, x, None)
    peers = theirs(
        scheduler,
        lambda x, k: network(x, k, None),
        steps,
        x,
        eta=lambda: eta,
        use_clipped_model_output=lambda: clip,
        variance_noise=draws(4, 1, 8, 8, seed=1, dtype=torch.float32),
    )
    assert_equal(mine, peers)


@pytest.mark.parametrize(("sampler", "steps"), [(DDIM(), 50), (DDIM(1.0), 50), (DDIM(), 10)])
def test_the_shipped_model_gives_the_same_pixels(sampler: DDIM, steps: int) -> None:
    model = load_model("fashion-mnist")
    x = normal(20, *model.shape).float()
    label = torch.arange(20) % 10
    mine = ours(model.denoiser(), sampler, "trailing", steps, x, label)[-1]
    scheduler = DDIMScheduler(**COMMON, clip_sample=True, timestep_spacing="trailing")
    peers = theirs(
        scheduler,
        lambda x, k: model.network(x, k, label),
        steps,
        x,
        eta=lambda: sampler.eta,
        use_clipped_model_output=lambda: True,
        variance_noise=draws(20, *model.shape, seed=1, dtype=torch.float32),
    )[-1]
    difference = (to_uint8(mine).int() - to_uint8(peers).int()).abs()
    assert (difference <= 1).double().mean() >= 0.999
    assert to_uint8(mine).float().std() > 50  # images, not an empty canvas
