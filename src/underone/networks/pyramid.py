"""Convolutional networks over ever coarser images: a classifier, and an encoder without classes.

Their pooled features are what FID is measured in.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from underone.errors import UserError
from underone.networks.features import FeatureNetwork
from underone.networks.layers import DOWNSAMPLE, Revision


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """The shape of a classifier: one level for each of `widths`, each at half the last's size."""

    image_size: int
    channels: int
    classes: int
    widths: tuple[int, ...] = (32, 64, 128, 256)
    dropout: float = 0.0
    revision: Revision = 2
    name: Literal["classifier"] = "classifier"

    def __post_init__(self) -> None:
        if min(self.image_size, self.channels, self.classes) < 1:
            raise UserError("a classifier's image_size, channels and classes must be >= 1")
        if max(self.image_size, len(self.widths)) > 4096 or self.classes > 10**6:
            raise UserError("image_size and levels may be 4096 at most, classes a million")
        if not self.widths or not all(1 <= each <= 2**16 for each in (*self.widths, self.channels)):
            raise UserError(f"widths must be whole numbers in 1..{2**16}, got {self.widths}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout must lie in [0, 1), got {self.dropout}")


class Block(nn.Module):
    """Two normalised 3x3 convolutions beside a skip connection, (B, C, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(x + self.norm2(self.conv2(hidden)))


class Pyramid(FeatureNetwork):
    """A block at each of `widths` channels, each level at half the last one's resolution."""

    def __init__(self, inputs: int, widths: tuple[int, ...], revision: Revision) -> None:
        super().__init__()
        down = DOWNSAMPLE[revision]
        self.stem = nn.Conv2d(inputs, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(Block(width) for width in widths)
        self.downsample = nn.ModuleList(
            down(inputs, outputs) for inputs, outputs in pairwise(widths)
        )

    def features(self, x: Tensor) -> Tensor:
        """The last level averaged over the image, (B, widths[-1])."""
        hidden = self.stem(x)
        for level, block in enumerate(self.blocks):
            if level > 0:
                hidden = self.downsample[level - 1](hidden)
            hidden = block(hidden)
        return hidden.mean(dim=(2, 3))


class Classifier(Pyramid):
    """(B, C, H, W) in [-1, 1] -> logits (B, classes)."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__(config.channels, config.widths, config.revision)
        self.config = config
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(config.widths[-1], config.classes)

    def logits(self, features: Tensor) -> Tensor:
        """The class logits (B, classes) of features (B, widths[-1])."""
        return self.out(features)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.dropout(self.features(x)))


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The shape of an encoder: `patch` x `patch` pixels are first gathered into one.

    `projection`: the size of the space in which it is trained, beyond its features.
    """

    image_size: int
    channels: int
    patch: int = 2
    widths: tuple[int, ...] = (64, 128)
    projection: int = 512
    revision: Revision = 2
    name: Literal["encoder"] = "encoder"

    def __post_init__(self) -> None:
        if min(self.image_size, self.channels, self.patch, self.projection) < 1:
            raise UserError("an encoder's image_size, channels, patch and projection must be >= 1")
        if not self.widths or min(self.widths) < 1:
            raise UserError(f"widths must be whole numbers >= 1, got {self.widths}")
        if self.image_size % self.patch:
            raise UserError(f"image_size {self.image_size} is not a multiple of patch {self.patch}")

    @property
    def classes(self) -> None:
        """None: it knows no classes."""
        return None


class Encoder(Pyramid):
    """(B, C, H, W) in [-1, 1] -> (B, projection), what is compared when it is trained.

    Its features are taken before the projection, which keeps only what training asked for.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config.channels * config.patch**2, config.widths, config.revision)
        self.config = config
        self.projector = nn.Sequential(
            nn.Linear(config.widths[-1], config.projection, bias=False),
            nn.BatchNorm1d(config.projection),
            nn.ReLU(),
            nn.Linear(config.projection, config.projection, bias=False),
        )

    def features(self, x: Tensor) -> Tensor:
        """The last level averaged over the image, (B, widths[-1])."""
        return super().features(functional.pixel_unshuffle(x, self.config.patch))

    def forward(self, x: Tensor) -> Tensor:
        return self.projector(self.features(x))
