"""One noise stream per sample, keyed by (seed, index).

Sample i of seed s draws the same noise whatever the batch size, the order, the device or the
number of processes, so that two settings with the same seeds differ by the settings alone.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class NoiseStreams:
    """Draws standard normal noise (B, *shape), float32, row b from the stream of `keys[b]`.

    A stream is the Philox counter-based generator with (seed, index) as its 128-bit key: distinct
    keys never share a stream. Seeds and indices lie in 0..2^64 - 1.
    """

    def __init__(
        self,
        keys: Sequence[tuple[int, int]],
        shape: tuple[int, ...],
        device: torch.device | str = "cpu",
    ) -> None:
        self._streams = [
            np.random.Generator(np.random.Philox(key=np.array(key, dtype=np.uint64)))
            for key in keys
        ]
        self._shape = shape
        self._device = device

    def __call__(self) -> Tensor:
        """The next draw of every stream."""
        noise = np.empty((len(self._streams), *self._shape), dtype=np.float32)
        for row, stream in zip(noise, self._streams, strict=True):
            stream.standard_normal(dtype=np.float32, out=row)
        return torch.from_numpy(noise).to(self._device)
