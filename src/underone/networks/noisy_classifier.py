"""A classifier of noisy images, conditioned on the time: half a U-Net.

After Dhariwal and Nichol 2021, section 4, whose gradient guides a diffusion model.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from underone.errors import UserError
from underone.networks.contraction import Contraction, ContractionConfig
from underone.networks.layers import normalisation, zero


@dataclass(frozen=True, kw_only=True)
class NoisyClassifierConfig(ContractionConfig):
    """The shape of a classifier of noisy images, which tells `classes` classes apart."""

    classes: int
    name: Literal["noisy-classifier"] = "noisy-classifier"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes < 1:
            raise UserError(f"a classifier's classes must be >= 1, got {self.classes}")


class HalfUNet(Contraction):
    """(B, C, H, W), condition (B,) float -> logits (B, classes), at first all equal.

    The contracting half of a U-Net and its middle, normalised, and a linear map of all of it. The
    paper pools over the image by attention; here positions are kept, with which the network learned
    faster than with a mean over pixels, on images that are all aligned alike.
    """

    config: NoisyClassifierConfig

    def __init__(self, config: NoisyClassifierConfig) -> None:
        super().__init__(config, time=True, labels=0)
        self.out_norm = normalisation(config.widths[-1])
        self.out = nn.Linear(config.widths[-1] * config.resolutions[-1] ** 2, config.classes)
        zero(self.out)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        hidden, _ = self.contract(x, self.embed(x, condition, None))
        return self.out(functional.silu(self.out_norm(hidden)).flatten(1))
