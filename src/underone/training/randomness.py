"""Every random choice of training is a function of (seed, purpose, number).

So a resumed run draws what the uninterrupted one would have drawn, with no state to store.
"""

from enum import IntEnum
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


class Purpose(IntEnum):
    """What a random stream is for."""

    INITIALISATION = 0
    ORDER = 1
    STEP = 2
    DROPOUT = 3


def derived_seed(seed: int, purpose: Purpose, number: int = 0) -> int:
    """A seed that is well mixed over all three arguments."""
    return int(np.random.SeedSequence((seed, purpose, number)).generate_state(1, np.uint64)[0] >> 1)


def batch_indices(count: int, batch_size: int, seed: int, step: int) -> Tensor:
    """The indices of batch `step` = 0, 1, ... of an endless walk over 0..count-1, (batch_size,).

    Each epoch is one permutation; a batch may reach over the end of an epoch into the next.
    """
    positions = torch.arange(step * batch_size, (step + 1) * batch_size)
    epochs = positions // count
    return torch.cat(
        [
            _permutation(count, seed, int(epoch))[positions[epochs == epoch] % count]
            for epoch in epochs.unique()
        ]
    )


@lru_cache(maxsize=2)
def _permutation(count: int, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(derived_seed(seed, Purpose.ORDER, epoch))
    return torch.randperm(count, generator=generator)
