"""Guidance in one place gives what diffusers' guiders give for the same two estimates."""

import pytest
import torch

from helpers import SmoothNetwork, float64, normal
from underone.diffusion import (
    AdaptiveProjected,
    LinearBeta,
    NetworkDenoiser,
    Rescaled,
    Velocity,
    branches,
    node_at,
)

# The guiders came to diffusers after the oldest version that the other tests accept.
apg = pytest.importorskip("diffusers.guiders.adaptive_projected_guidance")
utilities = pytest.importorskip("diffusers.guiders.guider_utils")

MODEL = NetworkDenoiser(SmoothNetwork().double(), LinearBeta(), Velocity())
HALF = node_at(MODEL.schedule, float64(0.5))
X, LABEL = normal(4, 1, 8, 8), torch.tensor([0, 2, 1, 1])


@torch.no_grad()
@pytest.mark.parametrize("weight", [0.5, 6.5])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("radius", [None, 0.1])
def test_projection_is_theirs(weight: float, eta: float, radius: float | None) -> None:
    ours = AdaptiveProjected(MODEL, weight, 3, eta=eta, radius=radius)(X, HALF, LABEL)
    conditional, unconditional = branches(MODEL, X, HALF, LABEL, 3)
    theirs = apg.normalized_guidance(
        conditional,
        unconditional,
        weight,
        eta=eta,
        norm_threshold=radius or 0,
        # Otherwise they add 1 + w times the update to the unconditional estimate: not the paper's.
        use_original_formulation=True,
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("phi", [0.0, 0.7, 1.0])
def test_rescaling_is_theirs(phi: float) -> None:
    ours = Rescaled(MODEL, 6.5, 3, phi=phi)(X, HALF, LABEL)
    conditional, unconditional = branches(MODEL, X, HALF, LABEL, 3)
    guided = conditional + 6.5 * (conditional - unconditional)
    theirs = utilities.rescale_noise_cfg(guided, conditional, phi)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
