"""A network compiled for its training."""

import torch
from torch import Tensor, nn

from underone.errors import UserError, kind_and_line


class Compiled(nn.Module):
    """`network`, compiled for batches of one size: faster, with other rounding.

    The first pass compiles, which takes a minute or two, and is a `UserError` where it fails.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # In a tuple, so that it is not registered as a second module with the same weights.
        self._compiled = (torch.compile(network, dynamic=False),)

    def forward(self, *inputs: Tensor | None) -> Tensor:
        from torch._dynamo.exc import TorchDynamoException  # takes a second to import

        try:
            output: Tensor = self._compiled[0](*inputs)
        except TorchDynamoException as error:
            raise UserError(
                f"the network cannot be compiled here ({kind_and_line(error)}): train without, "
                "--set compile=false"
            ) from error
        return output
