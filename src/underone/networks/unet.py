"""A U-Net conditioned on a scalar (the time) and a class."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from underone.errors import UserError
from underone.networks.layers import (
    DOWNSAMPLE,
    UPSAMPLE,
    Attention,
    ResidualBlock,
    Revision,
    normalisation,
    sinusoidal_encoding,
    zero,
)


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """The shape of a U-Net.

    `patch`: pixels are first gathered into patch x patch cells (pixel-unshuffle), so that the
    network works at image_size / patch. `multipliers`: channels of each level in units of `width`.
    `attention`: the resolutions inside the network at which attention is applied. `classes`: None
    for an unconditional network; the null class is index `classes`. `revision`: see `layers`.
    """

    image_size: int
    channels: int
    classes: int | None
    width: int = 64
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 1
    attention: tuple[int, ...] = (7,)
    heads: int = 4
    patch: int = 1
    dropout: float = 0.0
    time: bool = True
    revision: Revision = 2
    name: Literal["unet"] = "unet"

    def __post_init__(self) -> None:
        sizes = (self.image_size, self.channels, self.width, self.blocks, self.heads, self.patch)
        if min(sizes) < 1:
            raise UserError(
                "a U-Net's image_size, channels, width, blocks, heads and patch must be >= 1"
            )
        if self.classes is not None and self.classes < 1:
            raise UserError(f"classes must be >= 1, or left out for none, got {self.classes}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout must lie in [0, 1), got {self.dropout}")
        if not self.multipliers or min(self.multipliers) < 1:
            raise UserError(f"multipliers must be whole numbers >= 1, got {self.multipliers}")
        if self.image_size % self.patch:
            raise UserError(f"image_size {self.image_size} is not a multiple of patch {self.patch}")
        if self.width % 2 or any(self.width * m % self.heads for m in self.multipliers):
            raise UserError(f"width {self.width} must be even and divide into {self.heads} heads")
        unused = set(self.attention) - set(self.resolutions)
        if unused:
            raise UserError(
                f"attention at {sorted(unused)} is never reached: this network works at "
                f"{list(self.resolutions)}"
            )

    @property
    def resolutions(self) -> tuple[int, ...]:
        """The side of the feature maps at each level."""
        sizes = [self.image_size // self.patch]
        for _ in self.multipliers[1:]:
            sizes.append((sizes[-1] + 1) // 2)
        return tuple(sizes)


class Stage(nn.Module):
    """A residual block, and attention where the level has it."""

    def __init__(self, inputs: int, outputs: int, config: UNetConfig, attention: bool) -> None:
        super().__init__()
        self.block = ResidualBlock(inputs, outputs, 4 * config.width, config.dropout)
        self.attention = Attention(outputs, config.heads) if attention else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return self.attention(self.block(x, embedding))


class UNet(nn.Module):
    """(B, C, H, W), condition (B,) float or None, label (B,) int64 or None -> (B, C, H, W).

    Encoder and decoder levels are joined by concatenation (Ronneberger et al. 2015); every residual
    block is modulated by the sum of the time's and the class's embeddings.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        embedding = 4 * config.width
        pixels = config.channels * config.patch**2
        widths = [config.width * multiplier for multiplier in config.multipliers]
        attention = [size in config.attention for size in config.resolutions]
        down, up = DOWNSAMPLE[config.revision], UPSAMPLE[config.revision]

        if config.time:
            self.time = nn.Sequential(
                nn.Linear(config.width, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
            )
        if config.classes is not None:
            self.label = nn.Embedding(config.classes + 1, embedding)
            nn.init.normal_(self.label.weight, std=0.02)

        self.stem = nn.Conv2d(pixels, widths[0], 3, padding=1)
        skips = [widths[0]]
        channels = widths[0]
        self.encoder = nn.ModuleList()
        self.downsample = nn.ModuleList()
        for level, width in enumerate(widths):
            if level > 0:
                self.downsample.append(down(channels, channels))
                skips.append(channels)
            stages = nn.ModuleList()
            for _ in range(config.blocks):
                stages.append(Stage(channels, width, config, attention[level]))
                channels = width
                skips.append(channels)
            self.encoder.append(stages)

        self.middle = nn.ModuleList(
            [
                Stage(channels, channels, config, attention[-1]),
                Stage(channels, channels, config, False),
            ]
        )

        self.decoder = nn.ModuleList()
        self.upsample = nn.ModuleList()
        for level in reversed(range(len(widths))):
            stages = nn.ModuleList()
            for _ in range(config.blocks + 1):
                stages.append(
                    Stage(channels + skips.pop(), widths[level], config, attention[level])
                )
                channels = widths[level]
            self.decoder.append(stages)
            if level > 0:
                self.upsample.append(up(channels, channels))

        self.out_norm = normalisation(channels)
        self.out = nn.Conv2d(channels, pixels, 3, padding=1)
        zero(self.out)

    def forward(self, x: Tensor, condition: Tensor | None, label: Tensor | None) -> Tensor:
        embedding = functional.silu(self._embedding(x, condition, label))
        hidden = self.stem(functional.pixel_unshuffle(x, self.config.patch))
        skips = [hidden]
        for level, stages in enumerate(self.encoder):
            if level > 0:
                hidden = self.downsample[level - 1](hidden)
                skips.append(hidden)
            for stage in stages:  # type: ignore[attr-defined]
                hidden = stage(hidden, embedding)
                skips.append(hidden)
        for stage in self.middle:
            hidden = stage(hidden, embedding)
        for level, stages in enumerate(self.decoder):
            for stage in stages:  # type: ignore[attr-defined]
                hidden = stage(torch.cat([hidden, skips.pop()], dim=1), embedding)
            if level < len(self.upsample):
                hidden = self.upsample[level](hidden, skips[-1].shape[2:])
        hidden = self.out(functional.silu(self.out_norm(hidden)))
        return functional.pixel_shuffle(hidden, self.config.patch)

    def _embedding(self, x: Tensor, condition: Tensor | None, label: Tensor | None) -> Tensor:
        config = self.config
        embedding = x.new_zeros(x.shape[0], 4 * config.width)
        if config.time:
            if condition is None:
                raise ValueError("this network is conditioned on time, and none was given")
            encoding = sinusoidal_encoding(condition, config.width).to(x.dtype)
            embedding = embedding + self.time(encoding)
        if config.classes is not None:
            if label is None:
                raise ValueError("this network is conditioned on a class, and none was given")
            embedding = embedding + self.label(label)
        return embedding
