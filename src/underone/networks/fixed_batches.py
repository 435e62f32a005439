"""A compiled network, for batches of any size."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class InFixedBatches(nn.Module):
    """`network`, compiled for batches of `size`: others are cut, and filled up with zeros.

    So it is compiled only once. Where gradients are wanted the plain network is called.
    """

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network = network
        self.size = size
        compiled: Callable[..., Tensor] = torch.compile(network, dynamic=False)
        # In a tuple, so that it is not registered as a second module with the same weights.
        self._compiled = (compiled,)

    def forward(self, x: Tensor, condition: Tensor | None, label: Tensor | None) -> Tensor:
        if torch.is_grad_enabled():
            output: Tensor = self.network(x, condition, label)
            return output
        parts = []
        for start in range(0, len(x), self.size):
            rows = slice(start, start + self.size)
            rest = (None if each is None else each[rows] for each in (condition, label))
            parts.append(self._part(x[rows], *rest))
        return torch.cat(parts)

    def feature_maps(self, *inputs: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The plain network's feature maps."""
        maps: tuple[Tensor, Tensor, Tensor] = self.network.feature_maps(*inputs)  # type: ignore[operator]
        return maps

    def _part(self, x: Tensor, condition: Tensor | None, label: Tensor | None) -> Tensor:
        filled = (_filled(each, self.size) for each in (x, condition, label))
        return self._compiled[0](*filled)[: len(x)]


def _filled(tensor: Tensor | None, size: int) -> Tensor | None:
    if tensor is None:
        return None
    if len(tensor) == size:
        return tensor.contiguous()  # strides are compiled for too, and an expanded number's are 0
    return torch.cat([tensor, tensor.new_zeros(size - len(tensor), *tensor.shape[1:])])
