"""Muon: momentum whose every matrix is made orthogonal before it is taken as a step."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

# The quintic that brings singular values in (0, 1] close to 1 fastest (Jordan et al. 2024).
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
# The root mean square of a step of rate 1, about that of AdamW (Liu et al. 2025, eq. 4).
_STEP_SIZE = 0.2


def orthogonalised(matrix: Tensor) -> Tensor:
    """About U V^T of the singular value decomposition U S V^T of a `matrix` (M, N).

    Five iterations X <- a X + (b A + c A^2) X with A = X X^T, begun at X / |X|. They leave the
    singular values between about 0.7 and 1.2 (Jordan et al. 2024), but for those below about 1e-3
    of the norm, which stay smaller.
    """
    a, b, c = _QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-30)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """M <- mu M + G;  W <- W - rate 0.2 sqrt(max(m, n)) orthogonalised(G + mu M).

    Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon), with the step size of Liu et al.
    2025 (arXiv 2502.16982), which lets AdamW's learning rates serve. Kernels (O, I, H, W) count as
    matrices (O, I H W). For weights between hidden layers alone.
    """

    def __init__(self, weights: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum})

    # Torch's own overloads are for closures, which are not used here.
    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group["lr"], group["momentum"])

    def _update(self, weight: Tensor, gradient: Tensor, rate: float, momentum: float) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].mul_(momentum).add_(gradient)
        ahead = torch.add(gradient, state["momentum"], alpha=momentum).flatten(1)
        scale = _STEP_SIZE * max(ahead.shape) ** 0.5
        weight.sub_(orthogonalised(ahead).view_as(weight), alpha=rate * scale)
