"""A classifier that attends: patches of the image are compared with each other, not convolved."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from underone.errors import UserError
from underone.networks.features import FeatureNetwork
from underone.networks.layers import Attention, normalisation, zero


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The shape of a transformer: a token of `width` channels for each `patch` x `patch` pixels.

    It has no resampling layers, so it was never of revision 1.
    """

    image_size: int
    channels: int
    classes: int
    patch: int = 4
    stem: int = 32
    width: int = 128
    depth: int = 6
    heads: int = 4
    dropout: float = 0.0
    revision: Literal[2] = 2
    name: Literal["transformer"] = "transformer"

    def __post_init__(self) -> None:
        sizes = (self.image_size, self.channels, self.classes, self.stem, self.width, self.depth)
        if min(*sizes, self.heads) < 1:
            raise UserError(
                "a transformer's image_size, channels, classes, stem, width, depth and heads "
                "must be >= 1"
            )
        if max(self.image_size, self.depth) > 4096 or max(self.stem, self.width) > 2**16:
            raise UserError("image_size and depth may be 4096 at most, stem and width 65536")
        if self.patch < 2 or self.patch % 2 or self.image_size % self.patch:
            raise UserError(
                f"patch must be even and divide image_size {self.image_size}, got {self.patch}"
            )
        if self.width % self.heads:
            raise UserError(f"width {self.width} does not divide into {self.heads} heads")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout must lie in [0, 1), got {self.dropout}")


class FeedForward(nn.Module):
    """Each token, all normalised, through a layer of four times its size; zero at first."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.norm = normalisation(channels)
        self.hidden = nn.Conv2d(channels, 4 * channels, 1)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Conv2d(4 * channels, channels, 1)
        zero(self.out)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(self.dropout(functional.gelu(self.hidden(self.norm(x)))))


class Transformer(FeatureNetwork):
    """(B, C, H, W) in [-1, 1] -> logits (B, classes).

    Tokens are made by convolutions that overlap (Hassani et al. 2021): trained on little data, a
    transformer of bare patches lags behind.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        side, patch = config.image_size // config.patch, config.patch
        self.stem = nn.Conv2d(config.channels, config.stem, 3, padding=1)
        self.tokens = nn.Conv2d(config.stem, config.width, 2 * patch, patch, padding=patch // 2)
        self.position = nn.Parameter(0.02 * torch.randn(config.width, side, side))
        self.blocks = nn.Sequential(
            *(
                layer
                for _ in range(config.depth)
                for layer in (
                    Attention(config.width, config.heads),
                    FeedForward(config.width, config.dropout),
                )
            )
        )
        self.norm = normalisation(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(config.width, config.classes)

    def features(self, x: Tensor) -> Tensor:
        """The tokens after the last block, normalised and averaged, (B, width)."""
        hidden = self.tokens(functional.relu(self.stem(x))) + self.position
        return self.norm(self.blocks(hidden)).mean(dim=(2, 3))

    def logits(self, features: Tensor) -> Tensor:
        """The class logits (B, classes) of features (B, width)."""
        return self.out(features)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.dropout(self.features(x)))
