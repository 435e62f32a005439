"""Figures by name: what metrics give for samples, and for what these are compared with."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from pydantic import Field

from underone.config import Config
from underone.metrics.frechet_error import paired_standard_error
from underone.metrics.uncertainty import normal_factor


class Figure(Config):
    """A value, with its standard error or its 95 % interval where one is known.

    `blocks`: where several disjoint seed blocks were measured, the value of each; `value` is then
    their mean. `influences`: what each sample contributes to an FID, as float32 bytes, by which two
    FIDs of the same seeds are compared; left out of the JSON.
    """

    value: float
    error: float | None = None
    interval: tuple[float, float] | None = None
    blocks: tuple[float, ...] = ()
    influences: bytes | None = Field(default=None, exclude=True, repr=False)

    @property
    def standard_error(self) -> float | None:
        """The standard error; for a proportion, that of a normal error with the same interval."""
        if self.error is None and self.interval is not None:
            low, high = self.interval
            return (high - low) / 2 / normal_factor()
        return self.error

    def paired_error(self, other: "Figure") -> float | None:
        """The standard error of the difference from a figure of the same seeds; None if unknown."""
        if self.influences is None or other.influences is None:
            return None
        mine, theirs = (
            torch.frombuffer(bytearray(each), dtype=torch.float32).double()
            for each in (self.influences, other.influences)
        )
        return paired_standard_error(mine, theirs) if len(mine) == len(theirs) else None


Figures = dict[str, Figure]


@dataclass(frozen=True)
class Scores:
    """Figures of samples, and of controls where a metric has its own.

    `real`: of images that no model was trained on. `copies`: of the training images themselves.
    """

    figures: Figures
    real: Figures = field(default_factory=dict)
    copies: Figures = field(default_factory=dict)


# The result of a metric that lacks what it needs.
NOTHING = Scores({})


def merged(every: Sequence[Scores]) -> Scores:
    """All figures together."""
    return Scores(
        {name: figure for scores in every for name, figure in scores.figures.items()},
        {name: figure for scores in every for name, figure in scores.real.items()},
        {name: figure for scores in every for name, figure in scores.copies.items()},
    )


def mean_figures(parts: Sequence[Figures]) -> Figures:
    """The mean of each figure over several sets; errors are not carried over."""
    return {
        name: Figure(value=sum(part[name].value for part in parts) / len(parts))
        for name in parts[0]
        if all(name in part for part in parts)
    }


def in_blocks(parts: Sequence[Figures]) -> Figures:
    """The mean of each figure over disjoint seed blocks, beside the value of each block."""
    return {
        name: Figure(value=mean.value, blocks=tuple(part[name].value for part in parts))
        for name, mean in mean_figures(parts).items()
    }
