"""The expanding half of a U-Net or a VAE, which mirrors its contraction."""

from collections.abc import Sequence

from torch import nn

from underone.networks.contraction import ContractionConfig, Stage
from underone.networks.layers import UPSAMPLE, zero


def expansion(
    config: ContractionConfig, joined: Sequence[int]
) -> tuple[nn.ModuleList, nn.ModuleList]:
    """The stages of each level, coarsest first, and what leads from each level to the next.

    `joined`: the channels that each stage is given beside what comes out of the one before it.
    """
    up, widths, beside = UPSAMPLE[config.revision], config.widths, iter(joined)
    channels = widths[-1]
    decoder, upsample = nn.ModuleList(), nn.ModuleList()
    for level in reversed(range(len(widths))):
        attention = config.resolutions[level] in config.attention
        stages = nn.ModuleList()
        for _ in range(len(joined) // len(widths)):
            stages.append(Stage(channels + next(beside), widths[level], config, attention))
            channels = widths[level]
        decoder.append(stages)
        if level > 0:
            upsample.append(up(channels, channels))
    return decoder, upsample


def to_cells(config: ContractionConfig) -> nn.Conv2d:
    """From the finest level to cells of patch x patch pixels; zero at first."""
    out = nn.Conv2d(config.widths[0], config.channels * config.patch**2, 3, padding=1)
    zero(out)
    return out
