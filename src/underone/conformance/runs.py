"""Run a sampler on an exact denoiser, with the same noise every time."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from underone.diffusion import Bound, Denoiser, Estimate, Node, Sampler, integrate


def run(
    denoiser: Denoiser,
    sampler: Sampler,
    path: Sequence[Node],
    x: Tensor,
    noise: Callable[[], Tensor] | None = None,
) -> list[Estimate]:
    """Every estimate along the path, the result last."""
    draw = noise or endless(x.shape, seed=5)
    return list(integrate(Bound(denoiser, None), sampler, path, x, lambda: draw().to(x)))


def endless(shape: Sequence[int], seed: int) -> Callable[[], Tensor]:
    """Standard normal float64 draws, one a call."""
    generator = torch.Generator().manual_seed(100 + seed)
    return lambda: torch.randn(*shape, generator=generator, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal float64 numbers."""
    generator = torch.Generator().manual_seed(100 + seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)
