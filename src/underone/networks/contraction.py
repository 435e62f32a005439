"""The contracting half of a U-Net, by itself the body of a classifier of noisy images."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from underone.errors import UserError
from underone.networks.layers import (
    DOWNSAMPLE,
    Attention,
    ResidualBlock,
    Revision,
    sinusoidal_encoding,
)


@dataclass(frozen=True, kw_only=True)
class ContractionConfig:
    """The shape of a contraction.

    `patch`: pixels are first gathered into patch x patch cells (pixel-unshuffle), so that the
    network works at image_size / patch. `multipliers`: channels of each level in units of `width`.
    `attention`: the resolutions inside the network at which attention is applied. `revision`: see
    `layers`.
    """

    image_size: int
    channels: int
    width: int = 64
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 1
    attention: tuple[int, ...] = (7,)
    heads: int = 4
    patch: int = 1
    dropout: float = 0.0
    revision: Revision = 2

    def __post_init__(self) -> None:
        sizes = (self.image_size, self.channels, self.width, self.blocks, self.heads, self.patch)
        if min(sizes) < 1:
            raise UserError("image_size, channels, width, blocks, heads and patch must be >= 1")
        if max(self.image_size, self.patch) > 4096 or max(self.blocks, len(self.multipliers)) > 64:
            raise UserError("image_size may be 4096 at most, blocks and levels 64")
        if self.width * max(self.multipliers, default=1) > 2**16 or self.channels > 2**16:
            raise UserError(f"no level may be wider than {2**16} channels")
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
                f"{list(self.resolutions)}; choose from these, as by --set "
                f"network.attention=[{self.resolutions[-1]}]"
            )

    @property
    def resolutions(self) -> tuple[int, ...]:
        """The side of the feature maps at each level."""
        sizes = [self.image_size // self.patch]
        for _ in self.multipliers[1:]:
            sizes.append((sizes[-1] + 1) // 2)
        return tuple(sizes)

    @property
    def widths(self) -> tuple[int, ...]:
        """The channels of each level."""
        return tuple(self.width * multiplier for multiplier in self.multipliers)


class Stage(nn.Module):
    """A residual block, and attention where the level has it."""

    def __init__(
        self, inputs: int, outputs: int, config: ContractionConfig, attention: bool
    ) -> None:
        super().__init__()
        self.block = ResidualBlock(inputs, outputs, 4 * config.width, config.dropout)
        self.attention = Attention(outputs, config.heads) if attention else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return self.attention(self.block(x, embedding))


class Contraction(nn.Module):
    """Levels of ever coarser feature maps and the middle below them, for networks to build on.

    Every residual block is modulated by the sum of the embeddings of the time, if `time`, and of a
    label in 0..labels - 1, if `labels` is above 0. `skips` are the channels of the feature maps
    that `contract` returns.
    """

    def __init__(self, config: ContractionConfig, *, time: bool, labels: int) -> None:
        super().__init__()
        embedding = 4 * config.width
        widths = config.widths
        down = DOWNSAMPLE[config.revision]
        self.config = config
        self.time = (
            nn.Sequential(
                nn.Linear(config.width, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
            )
            if time
            else None
        )
        self.label = nn.Embedding(labels, embedding) if labels else None
        if self.label is not None:
            nn.init.normal_(self.label.weight, std=0.02)

        self.stem = nn.Conv2d(config.channels * config.patch**2, widths[0], 3, padding=1)
        channels = widths[0]
        skips = [channels]
        self.encoder = nn.ModuleList()
        self.downsample = nn.ModuleList()
        for level, width in enumerate(widths):
            if level > 0:
                self.downsample.append(down(channels, channels))
                skips.append(channels)
            stages = nn.ModuleList()
            for _ in range(config.blocks):
                attention = config.resolutions[level] in config.attention
                stages.append(Stage(channels, width, config, attention))
                channels = width
                skips.append(channels)
            self.encoder.append(stages)
        self.skips = tuple(skips)

        attention = config.resolutions[-1] in config.attention
        self.middle = nn.ModuleList(
            [
                Stage(channels, channels, config, attention),
                Stage(channels, channels, config, False),
            ]
        )

    def embed(self, x: Tensor, condition: Tensor | None, label: Tensor | None) -> Tensor:
        """What modulates the residual blocks, (B, 4 width), from condition and label (B,)."""
        embedding = x.new_zeros(x.shape[0], 4 * self.config.width)
        if self.time is not None:
            if condition is None:
                raise ValueError("this network is conditioned on time, and none was given")
            encoding = sinusoidal_encoding(condition, self.config.width).to(x.dtype)
            embedding = embedding + self.time(encoding)
        if self.label is not None:
            if label is None:
                raise ValueError("this network is conditioned on a class, and none was given")
            embedding = embedding + self.label(label)
        return functional.silu(embedding)

    def contract(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What comes out of the middle, and every feature map on the way down to it."""
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
        return hidden, skips

    def feature_maps(
        self, x: Tensor, condition: Tensor | None, label: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The feature maps after the first level, after the last and after the middle."""
        middle, skips = self.contract(x, self.embed(x, condition, label))
        return skips[self.config.blocks], skips[-1], middle
