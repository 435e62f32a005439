"""Which samples are drawn: how many, with which keys, of which classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from underone.errors import UserError

LABEL_POLICIES = ("balanced", "random", "proportional")
# The key of the stream of random labels, which is no sample's: indices are below 2^63.
_LABEL_STREAM = 2**64 - 1
_MOST_RANDOM_LABELS = 2**26
# 2^64 times the fractional part of the golden ratio, whose multiples modulo 1 spread evenly.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Draw:
    """Which samples: `count` of them, keyed by (seed, first), (seed, first + 1), ...

    `labels`: "balanced" (sample i has class i mod C), "random" (uniform), "proportional" (as often
    as in the model's data), or whole numbers separated by commas, repeated in turn.
    """

    count: int
    seed: int = 0
    first: int = 0
    labels: str = "balanced"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"count must be at least 1, got {self.count}")
        if not (0 <= self.seed < 2**63 and 0 <= self.first < 2**63 - self.count):
            raise UserError("seeds and indices must lie in 0..2^63 - 1")
        if self.labels == "random" and self.first + self.count > _MOST_RANDOM_LABELS:
            raise UserError(
                f"random labels are drawn one after another, up to {_MOST_RANDOM_LABELS:,}: choose "
                "a smaller first, or another seed"
            )

    @property
    def keys(self) -> list[tuple[int, int]]:
        """The (seed, index) of each sample."""
        return [(self.seed, self.first + offset) for offset in range(self.count)]

    def class_labels(self, classes: int, images: Sequence[int] | None = None) -> Tensor:
        """The label of each sample, (count,) int64; the data have `images` of each class.

        Proportional labels are even over any range of indices: the classes divide [0, 1) by their
        shares, and sample i has the class in whose part i times the golden ratio modulo 1 lies.
        """
        indices = torch.arange(self.first, self.first + self.count)
        if self.labels == "balanced":
            return indices % classes
        if self.labels == "random":
            key = np.array([self.seed, _LABEL_STREAM], dtype=np.uint64)
            stream = np.random.Generator(np.random.Philox(key=key))
            drawn = stream.integers(classes, size=self.first + self.count)
            return torch.from_numpy(drawn[self.first :])
        if self.labels == "proportional":
            if images is None:
                raise UserError(
                    "this model does not say how often each class is in its data: choose labels "
                    "balanced, random or classes like 0,3,3"
                )
            turns = (indices.numpy().astype(np.uint64) * _GOLDEN) / 2.0**64
            shares = np.cumsum(images) / sum(images)
            return torch.from_numpy(np.searchsorted(shares[:-1], turns, side="right"))
        chosen = torch.tensor(_parse_labels(self.labels, classes))
        return chosen[indices % len(chosen)]


def _parse_labels(text: str, classes: int) -> list[int]:
    try:
        labels = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(
            f"labels must be {', '.join(LABEL_POLICIES)} or classes like 0,3,3, got {text!r}"
        ) from None
    outside = next((label for label in labels if not 0 <= label < classes), None)
    if outside is not None:
        raise UserError(
            f"label {outside} is not a class of this model: choose from 0..{classes - 1}"
        )
    return labels
