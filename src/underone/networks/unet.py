"""A U-Net conditioned on a scalar (the time) and a class."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from underone.errors import UserError
from underone.networks.contraction import Contraction, ContractionConfig
from underone.networks.expansion import expansion, to_cells
from underone.networks.layers import normalisation


@dataclass(frozen=True, kw_only=True)
class UNetConfig(ContractionConfig):
    """The shape of a U-Net: that of its contracting half, which the other half mirrors.

    `classes`: None for an unconditional network; the null class is index `classes`.
    """

    classes: int | None = None
    time: bool = True
    name: Literal["unet"] = "unet"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes is not None and self.classes < 1:
            raise UserError(f"classes must be >= 1, or left out for none, got {self.classes}")


class UNet(Contraction):
    """(B, C, H, W), condition (B,) float or None, label (B,) int64 or None -> (B, C, H, W).

    Encoder and decoder levels are joined by concatenation (Ronneberger et al. 2015); every residual
    block is modulated by the sum of the time's and the class's embeddings.
    """

    config: UNetConfig

    def __init__(self, config: UNetConfig) -> None:
        labels = 0 if config.classes is None else config.classes + 1
        super().__init__(config, time=config.time, labels=labels)
        self.decoder, self.upsample = expansion(config, self.skips[::-1])
        self.out_norm = normalisation(config.widths[0])
        self.out = to_cells(config)

    def forward(self, x: Tensor, condition: Tensor | None, label: Tensor | None) -> Tensor:
        embedding = self.embed(x, condition, label)
        hidden, skips = self.contract(x, embedding)
        for level, stages in enumerate(self.decoder):
            for stage in stages:  # type: ignore[attr-defined]
                hidden = stage(torch.cat([hidden, skips.pop()], dim=1), embedding)
            if level < len(self.upsample):
                hidden = self.upsample[level](hidden, skips[-1].shape[2:])
        hidden = self.out(functional.silu(self.out_norm(hidden)))
        return functional.pixel_shuffle(hidden, self.config.patch)
