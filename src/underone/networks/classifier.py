"""A convolutional classifier; its pooled features are what FID is measured in."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from underone.errors import UserError
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
        if not self.widths or min(self.widths) < 1:
            raise UserError(f"widths must be whole numbers >= 1, got {self.widths}")
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


class Classifier(nn.Module):
    """(B, C, H, W) in [-1, 1] -> logits (B, classes)."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        down = DOWNSAMPLE[config.revision]
        widths = config.widths
        self.stem = nn.Conv2d(config.channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(Block(width) for width in widths)
        self.downsample = nn.ModuleList(
            down(inputs, outputs) for inputs, outputs in pairwise(widths)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(widths[-1], config.classes)

    def features(self, x: Tensor) -> Tensor:
        """The penultimate features: the last level averaged over the image, (B, widths[-1])."""
        hidden = self.stem(x)
        for level, block in enumerate(self.blocks):
            if level > 0:
                hidden = self.downsample[level - 1](hidden)
            hidden = block(hidden)
        return hidden.mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.dropout(self.features(x)))
