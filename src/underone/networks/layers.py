"""The parts networks are built of: encodings, adaptive normalisation, attention, resampling."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

# The version of the resampling layers. Networks of different revisions compute different
# functions of the same weights, so their tensors carry different names.
Revision = Literal[1, 2]


def sinusoidal_encoding(value: Tensor, size: int) -> Tensor:
    """[cos(f_j v), sin(f_j v)], f_j = 10000^(-2j / size) (Vaswani et al. 2017).

    j = 0 .. size / 2 - 1. (B,) float -> (B, size) float32; `size` is even.
    """
    half = size // 2
    exponents = torch.arange(half, dtype=torch.float32, device=value.device) / half
    angles = value[:, None].float() * torch.exp(-math.log(10_000.0) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def normalisation(channels: int) -> nn.GroupNorm:
    """Group normalisation with up to 32 groups of at least 4 channels, or one group of fewer."""
    most = max(1, min(32, channels // 4))
    groups = max(g for g in range(1, most + 1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


def zero(layer: nn.Conv2d | nn.Linear) -> None:
    """Set weight and bias to 0, so that the branch that ends in `layer` is zero at first."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class AdaptiveGroupNorm(nn.Module):
    """norm(x) (1 + scale(e)) + shift(e), at first norm(x) (Dhariwal and Nichol 2021, 3.1)."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm = normalisation(channels)
        self.modulation = nn.Linear(embedding, 2 * channels)
        zero(self.modulation)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(shift, self.norm(x), 1 + scale)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, the second under adaptive normalisation, beside a skip connection.

    (B, C_in, H, W) -> (B, C_out, H, W); the branch is zero at first.
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm = normalisation(inputs)
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.adaptive_norm = AdaptiveGroupNorm(outputs, embedding)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        zero(self.out)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        hidden = self.conv(functional.silu(self.norm(x)))
        hidden = functional.silu(self.adaptive_norm(hidden, embedding))
        return self.skip(x) + self.out(self.dropout(hidden))


class Attention(nn.Module):
    """Multi-head self-attention over the pixels, beside a skip connection; zero at first."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = normalisation(channels)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        zero(self.out)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        joint = self.query_key_value(self.norm(x)).flatten(2).transpose(1, 2)
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in joint.chunk(3, dim=2)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        mixed = mixed.transpose(1, 2).flatten(2).transpose(1, 2)
        return x + self.out(mixed.reshape(batch, channels, height, width))


class Downsample(nn.Module):
    """Revision 2: each output is a linear map of one 2x2 cell, centred on that cell.

    (B, C_in, H, W) -> (B, C_out, ceil(H/2), ceil(W/2)); odd sizes repeat their last row or column.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.merge = nn.Conv2d(inputs, outputs, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if height % 2 or width % 2:
            x = functional.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        return self.merge(x)


class Upsample(nn.Module):
    """Revision 2: each input is repeated over its own 2x2 cell, cut to `size`, then smoothed."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.smooth = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.smooth(_repeated(x, size))


class LegacyDownsample(nn.Module):
    """Revision 1: a 3x3 convolution of stride 2 and padding 1, centred on every other pixel.

    That is half a pixel off the 2x2 cells that upsampling repeats over: the defect that revision 2
    mends. Kept so that old checkpoints still sample.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class LegacyUpsample(nn.Module):
    """Revision 1: the same function as revision 2's, under the names revision 1 used."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.conv(_repeated(x, size))


DOWNSAMPLE: dict[Revision, type[nn.Module]] = {1: LegacyDownsample, 2: Downsample}
UPSAMPLE: dict[Revision, type[nn.Module]] = {1: LegacyUpsample, 2: Upsample}


def _repeated(x: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    return functional.interpolate(x, scale_factor=2, mode="nearest")[:, :, :height, :width]
